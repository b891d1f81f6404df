"""The kinds of movement in a recording, found in its velocities.

A trial's movement is its velocity as a trace of fixed length; k-means groups the traces. In a
centre-out task the groups are the targets, though no target is named.

Source: Lloyd 1982, doi:10.1109/TIT.1982.1056489.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.cluster import KMeans

from cortex.session import FloatArray
from training.samples.trial_samples import TrialSample

POINTS = 8
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class MovementKinds:
    """Kinds of movement.

    Attributes:
        traces: (kinds, POINTS * 2) mean trace of each, the x velocities before the y velocities.
    """

    traces: FloatArray

    def labelled(self, samples: Sequence[TrialSample]) -> list[TrialSample]:
        """The trials with their `movement` filled in: the kind whose trace is nearest.

        Trials without a label stay of unknown kind.
        """
        return [
            replace(s, movement=self._nearest(s) if s.labelled.any() else UNKNOWN) for s in samples
        ]

    def _nearest(self, sample: TrialSample) -> int:
        return int(np.square(self.traces - _trace(sample)).sum(1).argmin())


def find_kinds(samples: Sequence[TrialSample], movements: int, *, seed: int = 0) -> MovementKinds:
    """Groups the movements of trials, of which at least one has a label.

    Args:
        samples: training trials, of one or many sessions with one unit of velocity.
        movements: how many kinds; where trials make fewer different movements, as many as these.
        seed: of the clustering.
    """
    traces = np.stack([_trace(sample) for sample in samples if sample.labelled.any()])
    kinds = min(movements, len(np.unique(traces, axis=0)))
    found = KMeans(kinds, n_init=10, random_state=seed).fit(traces)
    return MovementKinds(traces=found.cluster_centers_.astype(np.float32))


def _trace(sample: TrialSample) -> FloatArray:
    """(POINTS * 2,) the trial's velocity, stretched to one length."""
    labelled = sample.velocity[sample.labelled]
    at = np.linspace(0, len(labelled) - 1, POINTS)
    axis = np.arange(len(labelled))
    return np.concatenate([np.interp(at, axis, labelled[:, i]) for i in (0, 1)]).astype(np.float32)
