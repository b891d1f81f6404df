"""A recording's trials as a checkpoint's model takes them."""

from collections.abc import Sequence
from dataclasses import replace

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.session import Session
from cortex.vocabulary import to_vocabulary
from training.samples.trial_samples import TrialSample, trial_samples


def model_trials(
    checkpoint: Checkpoint, session: Session, trials: Sequence[int]
) -> list[TrialSample]:
    """The samples of the trials given, with units numbered as the model numbers them.

    Raises:
        InputError: the session does not fit the model.
    """
    grid = checkpoint.model.config.grid
    if session.grid != grid:
        raise InputError(
            f"session {session.session_id!r}: time grid is {session.grid}, the model's is {grid}"
        )
    events = to_vocabulary(session, checkpoint.unit_ids)
    return trial_samples(replace(session, events=events), trials)
