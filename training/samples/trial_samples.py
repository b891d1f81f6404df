"""Trials as training samples: each a short session that begins empty at its first step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        units: first unit of the session in the vocabulary, and one past its last.
        movement: kind of movement, from movement_kinds; -1 where it is not known.
    """

    events: Events
    velocity: FloatArray
    labelled: npt.NDArray[np.bool_]
    units: tuple[int, int]
    movement: int = -1

    @property
    def n_steps(self) -> int:
        """Steps in the trial, the last one possibly cut short by its end."""
        return len(self.labelled)


def trial_samples(
    session: Session, trials: Sequence[int], *, first_unit: int = 0
) -> list[TrialSample]:
    """The samples of the trials given, in their order.

    Args:
        session: the recording.
        trials: which trials.
        first_unit: where the session's units begin in the vocabulary.
    """
    return [_trial_sample(session, trial, first_unit) for trial in trials]


def _trial_sample(session: Session, trial: int, first_unit: int) -> TrialSample:
    bins = session.grid.bins_per_step
    start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
    n_steps = -(-(stop - start) // bins)
    behavior = session.behavior
    lo, hi = np.searchsorted(behavior.time_bin, (start, stop))
    velocity = np.zeros((n_steps * bins, 2), np.float32)
    labelled = np.zeros(n_steps * bins, np.bool_)
    velocity[behavior.time_bin[lo:hi] - start] = behavior.velocity[lo:hi]
    labelled[behavior.time_bin[lo:hi] - start] = True
    events = session.events.between(start, stop).shifted(-start)
    return TrialSample(
        events=replace(events, unit=events.unit + first_unit),
        velocity=velocity.reshape(n_steps, bins, 2),
        labelled=labelled.reshape(n_steps, bins),
        units=(first_unit, first_unit + len(session.unit_ids)),
    )
