"""Decodes trials offline, at the points where velocity was recorded."""

from collections.abc import Sequence

import numpy as np
import torch

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.event_batch import collate
from cortex.events import Events
from cortex.session import FloatArray, Session
from training.targets import trial_targets

TRIALS_AT_ONCE = 16


def to_vocabulary(session: Session, checkpoint: Checkpoint) -> Events:
    """The session's events with units numbered as the model numbers them.

    Raises:
        InputError: the session has a unit that the model was not trained on, or another time grid.
    """
    where = f"session {session.session_id!r}"
    index = {name: i for i, name in enumerate(checkpoint.unit_ids)}
    unknown = [u for u in session.unit_ids if u not in index]
    if unknown:
        raise InputError(
            f"{where}: {len(unknown)} of {len(session.unit_ids)} units, {unknown[0]!r} first, "
            "are not in the model's vocabulary"
        )
    grid = checkpoint.model.config.grid
    if session.grid != grid:
        raise InputError(f"{where}: time grid is {session.grid}, the model's is {grid}")
    table = np.array([index[name] for name in session.unit_ids], np.int64)
    events = session.events
    return Events(unit=table[events.unit], time_bin=events.time_bin, value=events.value)


@torch.inference_mode()
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
    events = to_vocabulary(session, checkpoint)
    bins = session.grid.bins_per_step
    model = checkpoint.model
    decoded: list[FloatArray] = []
    for first in range(0, len(trials), TRIALS_AT_ONCE):
        part = trials[first : first + TRIALS_AT_ONCE]
        start, stop = session.trials.start_bin[part], session.trials.stop_bin[part]
        batch = collate(
            [events.between(a, b).shifted(-a) for a, b in zip(start, stop, strict=True)],
            n_steps=int((-(-(stop - start) // bins)).max()),
            bins_per_step=bins,
        )
        velocity = model(batch, torch.tensor([bins - 1]))[:, :, 0].numpy()
        for trial, row in zip(part, velocity, strict=True):
            steps, _ = trial_targets(session, trial)
            decoded.append(row[steps])
    return decoded
