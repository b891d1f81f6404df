"""Decodes a recording's trials with a checkpoint, at the points where velocity was recorded."""

from collections.abc import Sequence

from cortex.checkpoint import Checkpoint
from cortex.session import FloatArray, Session
from training.evaluation.model_trials import model_trials
from training.evaluation.sample_decoding import decode_samples


def decode_trials(
    checkpoint: Checkpoint, session: Session, trials: Sequence[int], device: str = "cpu"
) -> list[FloatArray]:
    """Velocity (n, 2) at each trial's target steps, every trial a stream that begins empty.

    Args:
        checkpoint: the decoder; its model is moved to the device.
        session: the recording.
        trials: which trials.
        device: where to decode.

    Raises:
        InputError: the session does not fit the model.
    """
    samples = model_trials(checkpoint, session, trials)
    return decode_samples(checkpoint.model.to(device), samples, device)
