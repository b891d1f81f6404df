"""Decodes a recording's trials with a checkpoint, at the points where velocity was recorded."""

from collections.abc import Sequence
from dataclasses import replace

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.session import FloatArray, Session
from cortex.vocabulary import to_vocabulary
from training.evaluation.sample_decoding import decode_samples
from training.samples.trial_samples import trial_samples


def decode_trials(
    checkpoint: Checkpoint, session: Session, trials: Sequence[int]
) -> list[FloatArray]:
    """Velocity (n, 2) at each trial's target steps, every trial a stream that begins empty.

    Args:
        checkpoint: the decoder.
        session: the recording.
        trials: which trials.

    Raises:
        InputError: the session does not fit the model.
    """
    grid = checkpoint.model.config.grid
    if session.grid != grid:
        raise InputError(
            f"session {session.session_id!r}: time grid is {session.grid}, the model's is {grid}"
        )
    events = to_vocabulary(session, checkpoint.unit_ids)
    return decode_samples(checkpoint.model, trial_samples(replace(session, events=events), trials))
