"""The decoders that an evaluation compares, as functions of a recording and its trials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cortex.checkpoint import Checkpoint
from cortex.session import FloatArray, Session
from training.evaluation.offline_decoding import decode_trials
from training.evaluation.streamed_decoding import stream_trials
from training.rivals.wiener import WienerConfig, WienerFilter

# Velocity (n, 2) at each trial's target steps, every trial begun without a past.
DecodeTrials = Callable[[Session, Sequence[int]], list[FloatArray]]


@dataclass(frozen=True, kw_only=True)
class Decoders:
    """Cortex in two ways, and the Wiener filter. All are causal.

    Attributes:
        name: Cortex's name for readers.
        streamed: Cortex, one step at a time.
        offline: Cortex, whole trials at once.
        wiener: the Wiener filter, fitted to the same training trials.
    """

    name: str
    streamed: DecodeTrials
    offline: DecodeTrials
    wiener: DecodeTrials


def make_decoders(
    checkpoint: Checkpoint, session: Session, train: Sequence[int], *, device: str = "cpu"
) -> Decoders:
    """A checkpoint beside a Wiener filter that learns from the same trials.

    Raises:
        InputError: the training trials hold no labelled step.
    """
    return Decoders(
        name=f"Cortex {checkpoint.name}",
        streamed=lambda session, trials: stream_trials(checkpoint, session, trials, device),
        offline=lambda session, trials: decode_trials(checkpoint, session, trials, device),
        wiener=WienerFilter(WienerConfig()).fit(session, train).predict,
    )
