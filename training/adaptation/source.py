"""What a decoder is adapted from: a checkpoint and, if at hand, recordings that it learnt from."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cortex.checkpoint import Checkpoint, load_checkpoint
from cortex.data.open_session import open_session
from cortex.session import Session
from training.adaptation.unit_matching import KnownUnits, known_units
from training.fitting.provenance import session_digest


@dataclass(frozen=True, kw_only=True)
class Source:
    """A decoder to start from.

    Attributes:
        checkpoint: the decoder.
        alike: units to liken new ones to; None where no recording is at hand.
        digests: of the recordings that tell what those units are tuned to.
    """

    checkpoint: Checkpoint
    alike: KnownUnits | None = None
    digests: tuple[str, ...] = ()


@cache
def open_source(model: Path, recordings: tuple[Path, ...] = ()) -> Source:
    """Reads a source; one read and one fit of its units' tuning a process.

    Args:
        model: checkpoint directory.
        recordings: .nwb or .npz files that the model was trained on.

    Raises:
        InputError: a file cannot be used, the model is in int8, or it does not know the units.
    """
    checkpoint = load_checkpoint(model)
    checkpoint.require_float()
    sessions = [open_on_grid(path, checkpoint) for path in recordings]
    return Source(
        checkpoint=checkpoint,
        alike=known_units(checkpoint, sessions) if sessions else None,
        digests=tuple(session_digest(s) for s in sessions),
    )


def open_on_grid(path: Path, checkpoint: Checkpoint) -> Session:
    """A recording on the model's grid, or on its own where it comes in bins."""
    return open_session(path, checkpoint.model.config.grid if path.suffix == ".nwb" else None)
