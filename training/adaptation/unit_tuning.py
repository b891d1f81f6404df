"""How each unit's rate depends on the hand's velocity: what units of two recordings share.

The rate is log-linear in velocity and speed, as in Moran and Schwartz 1999 ("Motor cortical
representation of speed and direction during reaching"), fitted by maximum likelihood.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import PoissonRegressor

from cortex.session import FloatArray, Session
from training.samples.trial_samples import trial_samples

# Motor cortex leads the hand by about so much.
LAG_S = 0.1
# Of the weights, against units with a handful of spikes.
PENALTY = 1e-2
# Log rates beyond these, in log spikes a second, are no unit's.
LOWEST, HIGHEST = np.log(1e-3), np.log(1e3)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Points:
    """Steps of some trials, with the velocity that follows them.

    Attributes:
        counts: (n, units) spikes of each unit in each step.
        velocity: (n, 2) velocity at the end of the step LAG_S later.
        step_s: width of a step in seconds.
    """

    counts: Array
    velocity: FloatArray
    step_s: float


def tuning_points(session: Session, trials: Sequence[int]) -> Points:
    """The steps of the trials whose later velocity is labelled; none crosses a trial's end."""
    lag = round(LAG_S / session.grid.step_s)
    n_units = len(session.unit_ids)
    counts, velocity = [np.empty((0, n_units))], [np.empty((0, 2), np.float32)]
    for sample in trial_samples(session, trials):
        n_steps, bins = sample.labelled.shape
        spikes = sample.events.to_counts(n_steps * bins, n_units)
        by_step = spikes.reshape(n_steps, bins, n_units).sum(1)
        labelled = sample.labelled[lag:, -1]
        counts.append(by_step[: len(labelled)][labelled].astype(np.float64))
        velocity.append(sample.velocity[lag:, -1][labelled])
    return Points(
        counts=np.concatenate(counts),
        velocity=np.concatenate(velocity),
        step_s=session.grid.step_s,
    )


def fit_tuning(points: Points, scale: float) -> Array:
    """(units, 4) weights of log rate: of one, of x and y velocity, and of speed.

    Args:
        points: what to fit to; at least one.
        scale: velocity, in the labels' unit, that counts as one.
    """
    features = _features(points, scale)
    tuning = np.zeros((points.counts.shape[1], 4))
    tuning[:, 0] = LOWEST
    for unit in np.flatnonzero(points.counts.any(0)):
        fitted = PoissonRegressor(alpha=PENALTY, max_iter=300).fit(
            features[:, 1:], points.counts[:, unit]
        )
        tuning[unit] = fitted.intercept_ - np.log(points.step_s), *fitted.coef_
    return tuning


def log_rates(tuning: Array, points: Points, scale: float) -> Array:
    """(n, units) log spikes a second that the tuning expects at each point."""
    return np.clip(_features(points, scale) @ tuning.T, LOWEST, HIGHEST)


def _features(points: Points, scale: float) -> Array:
    z = points.velocity.astype(np.float64) / scale
    return np.column_stack([np.ones(len(z)), z, np.linalg.norm(z, axis=1)])
