"""The best R2 that a simulated session allows, as `training:simulated_ceiling` writes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What the oracle scored.

    Its R2 is that of `trials` alone: a share of it means something only for a decoder's R2 on the
    same trials.

    Attributes:
        session_id: name of the recording.
        digest: of the session, as `training.fitting.provenance.session_digest` makes it.
        trials: indices of the trials that were scored, in order of scoring.
        points: labelled steps in them.
        r2_causal: R2 of the estimate from the spikes up to the end of each step.
        r2_smoothed: R2 of the estimate from all of a trial's spikes.
    """

    session_id: str
    digest: str
    trials: tuple[int, ...]
    points: int
    r2_causal: float
    r2_smoothed: float


def read_ceiling(path: Path, *, digest: str | None = None) -> Ceiling:
    """Reads a ceiling.

    Args:
        path: the JSON file.
        digest: of the session that it must be of; None for any.

    Raises:
        InputError: the file is missing, is not a ceiling, or is another session's.
    """
    try:
        fields = json.loads(path.read_text())
        ceiling = _ceiling(fields)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a ceiling, expected the JSON file that training:simulated_ceiling writes "
            f"({type(error).__name__}: {error})"
        ) from error
    if digest is not None and ceiling.digest != digest:
        raise InputError(
            f"{path}: is the ceiling of another session, {ceiling.session_id!r} with digest "
            f"{ceiling.digest[:12]}, expected digest {digest[:12]}"
        )
    return ceiling


def _ceiling(fields: Any) -> Ceiling:
    """Raises KeyError, TypeError or ValueError on fields that are missing or of another kind."""
    return Ceiling(
        session_id=str(fields["session_id"]),
        digest=str(fields["digest"]),
        trials=tuple(int(trial) for trial in fields["trials"]),
        points=int(fields["points"]),
        r2_causal=float(fields["r2_causal"]),
        r2_smoothed=float(fields["r2_smoothed"]),
    )
