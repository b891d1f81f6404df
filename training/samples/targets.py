"""The points that every decoder is scored on."""

import numpy as np

from cortex.events import IntArray
from cortex.session import FloatArray, Session


def trial_targets(session: Session, trial: int) -> tuple[IntArray, FloatArray]:
    """A trial's labelled steps: those whose last bin has a label.

    Returns:
        step: (n,) steps, counted from the trial's first bin.
        velocity: (n, 2) velocity recorded in each step's last bin.
    """
    bins = session.grid.bins_per_step
    start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
    behavior = session.behavior
    lo, hi = np.searchsorted(behavior.time_bin, (start, stop))
    step, phase = np.divmod(behavior.time_bin[lo:hi] - start, bins)
    last = phase == bins - 1
    return step[last], behavior.velocity[lo:hi][last]
