"""What a real-time decoder holds at moments that are not the ends of its steps.

Between two steps the newest answer stands. So a velocity at any bin is that of the newest step that
has ended by then, and never rests on a later spike.
"""

from dataclasses import replace

import numpy as np

from cortex.events import IntArray
from cortex.session import Behavior, FloatArray, Session, Trials
from training.evaluation.decoders import DecodeTrials


def first_answer(session: Session) -> IntArray:
    """(trials,) the bin that ends each trial's first step: before it nothing is decoded."""
    return session.trials.start_bin + session.grid.bins_per_step - 1


def held_velocity(
    decode: DecodeTrials, session: Session, trial: IntArray, bins: IntArray
) -> FloatArray:
    """Velocity (N, T, 2) that the decoder holds at the end of each bin.

    Each trial's stream begins empty at the trial's start, and runs on past its end where bins ask
    for it.

    Args:
        decode: the decoder.
        session: the recording.
        trial: (N,) trials.
        bins: (N, T) bins of the session, none before the trial's `first_answer`.
    """
    if not len(trial):
        return np.empty((*bins.shape, 2), np.float32)
    width = session.grid.bins_per_step
    start = session.trials.start_bin[trial]
    step = (bins + 1 - start[:, None]) // width - 1
    stop = start + (step.max(1) + 1) * width
    # Decoders answer at labelled steps: label the last bin of every step. Where spans overlap, a
    # label of one trial is within a step of the other or the same as its own, and so adds nothing.
    ends = np.unique(
        np.concatenate([np.arange(a, b, width) for a, b in zip(start, stop, strict=True)])
    )
    asked = replace(
        session,
        trials=Trials(start_bin=start, stop_bin=stop),
        behavior=Behavior(
            time_bin=ends + width - 1,
            velocity=np.zeros((len(ends), 2), np.float32),
            unit=session.behavior.unit,
        ),
    )
    decoded = decode(asked, range(len(trial)))
    return np.stack([velocity[at] for velocity, at in zip(decoded, step, strict=True)])
