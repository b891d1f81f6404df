"""Trials as training samples: each a short session that begins empty at its first step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cortex.events import Events
from cortex.session import FloatArray, Session


@dataclass(frozen=True, kw_only=True)
class TrialSample:
    """One trial, with time counted from its first bin.

    Attributes:
        events: spikes of the trial.
        velocity: (steps, bins_per_step, 2) labels; 0 where there is none.
        labelled: (steps, bins_per_step) True where there is a label.
    """

    events: Events
    velocity: FloatArray
    labelled: npt.NDArray[np.bool_]

    @property
    def n_steps(self) -> int:
        """Steps in the trial, the last one possibly cut short by its end."""
        return len(self.labelled)

    def crop(self, first_step: int, n_steps: int) -> "TrialSample":
        """Steps [first_step, first_step + n_steps) as a sample of their own."""
        bins = self.labelled.shape[1]
        first, stop = first_step * bins, (first_step + n_steps) * bins
        return TrialSample(
            events=self.events.between(first, stop).shifted(-first),
            velocity=self.velocity[first_step : first_step + n_steps],
            labelled=self.labelled[first_step : first_step + n_steps],
        )


def trial_samples(session: Session, trials: Sequence[int]) -> list[TrialSample]:
    """The samples of the trials given, in their order."""
    return [_trial_sample(session, trial) for trial in trials]


def _trial_sample(session: Session, trial: int) -> TrialSample:
    bins = session.grid.bins_per_step
    start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
    n_steps = -(-(stop - start) // bins)
    behavior = session.behavior
    lo, hi = np.searchsorted(behavior.time_bin, (start, stop))
    velocity = np.zeros((n_steps * bins, 2), np.float32)
    labelled = np.zeros(n_steps * bins, np.bool_)
    velocity[behavior.time_bin[lo:hi] - start] = behavior.velocity[lo:hi]
    labelled[behavior.time_bin[lo:hi] - start] = True
    return TrialSample(
        events=session.events.between(start, stop).shifted(-start),
        velocity=velocity.reshape(n_steps, bins, 2),
        labelled=labelled.reshape(n_steps, bins),
    )
