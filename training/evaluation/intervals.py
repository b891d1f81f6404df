"""Confidence intervals of velocity R2, by bootstrap over trials.

The steps of one trial are far from independent; trials are the units that can be drawn again. R2 of
any draw follows from a few sums a trial, so that thousands of draws cost one matrix product.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cortex.session import FloatArray

LEVEL = 0.95
RESAMPLES = 1000

Interval = tuple[float, float]
_Sums = npt.NDArray[np.float64]


def bootstrap_r2(
    true: Sequence[FloatArray],
    decoded: Sequence[FloatArray],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The percentile interval (low, high) of `metrics.velocity_r2`.

    Draws in which the recorded velocity does not vary have no R2 and are left out.

    Args:
        true: each trial's recorded velocity (n_i, 2). Trials without a point are left out.
        decoded: each trial's decoded velocity, likewise.
        resamples: draws, each of as many trials as there are, with replacement.
        level: share of the draws between low and high.
        seed: of the draws: the same one draws the same trials.

    Returns:
        Both nan where fewer than two trials have points.
    """
    return _interval(_resampled_r2(true, decoded, resamples, seed), level)


def bootstrap_r2_difference(
    true: Sequence[FloatArray],
    decoded: Sequence[FloatArray],
    baseline: Sequence[FloatArray],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of the R2 of `decoded` less that of `baseline`, both on the same draws.

    Trials that are hard for one decoder are hard for the other, so this paired interval is much
    narrower than the two intervals suggest. Arguments and result as in `bootstrap_r2`.
    """
    r2 = _resampled_r2(true, decoded, resamples, seed)
    return _interval(r2 - _resampled_r2(true, baseline, resamples, seed), level)


def _resampled_r2(
    true: Sequence[FloatArray], decoded: Sequence[FloatArray], resamples: int, seed: int
) -> _Sums:
    """R2 (resamples,) of each draw; nan where it has none."""
    pairs = [(t, d) for t, d in zip(true, decoded, strict=True) if len(t)]
    if len(pairs) < 2:
        return np.full(resamples, np.nan)
    # About the mean of all, so that the sums of squares lose no digits.
    centre = np.concatenate([t for t, _ in pairs]).mean(0, dtype=np.float64)
    sums = np.array([_sums(t - centre, d - centre) for t, d in pairs])
    times_drawn = np.random.default_rng(seed).multinomial(
        len(pairs), np.full(len(pairs), 1 / len(pairs)), size=resamples
    )
    points, total, squares, errors = np.moveaxis(
        np.tensordot(times_drawn.astype(np.float64), sums, axes=1), 1, 0
    )
    about_mean = squares - total**2 / points
    # What is left of a constant velocity is rounding.
    varies = about_mean > 1e-12 * squares
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(varies, 1 - errors / about_mean, np.nan)
    return np.asarray(r2.mean(1), np.float64)


def _sums(true: FloatArray, decoded: FloatArray) -> _Sums:
    """(4, 2) of a trial: points, sum, sum of squares, sum of squared errors."""
    return np.stack(
        [
            np.full(2, float(len(true))),
            true.sum(0),
            (true**2).sum(0),
            ((true - decoded) ** 2).sum(0),
        ]
    )


def _interval(values: _Sums, level: float) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
