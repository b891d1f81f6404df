"""The kinds of movement in a recording, found in its velocities.

A trial's movement is its velocity as a trace of fixed length; k-means groups the traces. In a
centre-out task the groups are the targets, though no target is named.

Source: Lloyd 1982, doi:10.1109/TIT.1982.1056489.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.cluster import KMeans

from cortex.session import FloatArray
from training.samples.trial_samples import TrialSample

POINTS = 8
UNKNOWN = -1


def with_kinds(
    samples: Sequence[TrialSample], movements: int, *, seed: int = 0
) -> list[TrialSample]:
    """The trials with their `movement` filled in: which of `movements` kinds it is.

    Trials without a label stay of unknown kind.

    Args:
        samples: training trials, of one or many sessions with one unit of velocity.
        movements: how many kinds; with fewer labelled trials than these, as many as trials.
        seed: of the clustering.
    """
    known = [i for i, sample in enumerate(samples) if sample.labelled.any()]
    traces = np.stack([_trace(samples[i]) for i in known])
    # Few trials may make fewer distinct movements than were asked for.
    kinds = min(movements, len(np.unique(traces, axis=0)))
    found = KMeans(kinds, n_init=10, random_state=seed).fit_predict(traces)
    movement = dict(zip(known, found.tolist(), strict=True))
    return [replace(s, movement=movement.get(i, UNKNOWN)) for i, s in enumerate(samples)]


def _trace(sample: TrialSample) -> FloatArray:
    """(POINTS * 2,) the trial's velocity, stretched to one length."""
    labelled = sample.velocity[sample.labelled]
    at = np.linspace(0, len(labelled) - 1, POINTS)
    axis = np.arange(len(labelled))
    return np.concatenate([np.interp(at, axis, labelled[:, i]) for i in (0, 1)]).astype(np.float32)
