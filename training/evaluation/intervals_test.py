"""Bootstrap intervals: equal to a plain loop over draws, and right about data made to measure."""

import numpy as np
import pytest

from cortex.session import FloatArray
from training.evaluation.intervals import bootstrap_r2, bootstrap_r2_difference
from training.evaluation.metrics import velocity_r2

Trials = list[FloatArray]


def _trials(
    rng: np.random.Generator, lengths: list[int], *noise: float
) -> tuple[Trials, list[Trials]]:
    """Recorded velocities, and for each noise the decoded ones."""
    true = [rng.normal(50, 100, (n, 2)).astype(np.float32) for n in lengths]
    decoded = [[(t + rng.normal(0, sd, t.shape)).astype(np.float32) for t in true] for sd in noise]
    return true, decoded


def _draws(n_trials: int, resamples: int, seed: int) -> list[list[int]]:
    """The trials of each draw, some of them more than once."""
    times = np.random.default_rng(seed).multinomial(
        n_trials, np.full(n_trials, 1 / n_trials), size=resamples
    )
    return [np.repeat(np.arange(n_trials), row).tolist() for row in times]


def _pooled_r2(true: Trials, decoded: Trials, draw: list[int]) -> float:
    return velocity_r2(
        np.concatenate([true[i] for i in draw]), np.concatenate([decoded[i] for i in draw])
    )


def test_equals_a_loop_over_draws() -> None:
    true, (a, b) = _trials(np.random.default_rng(0), [3, 9, 1, 20, 7, 12], 60, 80)
    draws = _draws(6, 200, seed=5)
    r2_a = [_pooled_r2(true, a, draw) for draw in draws]
    r2_b = [_pooled_r2(true, b, draw) for draw in draws]
    assert bootstrap_r2(true, a, resamples=200, level=0.9, seed=5) == pytest.approx(
        tuple(np.quantile(r2_a, [0.05, 0.95])), rel=1e-6
    )
    difference = np.subtract(r2_a, r2_b)
    assert bootstrap_r2_difference(true, a, b, resamples=200, level=0.9, seed=5) == pytest.approx(
        tuple(np.quantile(difference, [0.05, 0.95])), rel=1e-6
    )


def test_covers_the_true_value_as_often_as_it_says() -> None:
    # Noise with half the velocity's standard deviation leaves R2 = 1 - 1 / 4.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        true, (decoded,) = _trials(rng, [5] * 60, 50)
        low, high = bootstrap_r2(true, decoded, resamples=300, level=0.9)
        covered += low <= 0.75 <= high
    assert 80 <= covered <= 97


def test_trials_are_drawn_whole() -> None:
    # Every point of a trial has the same error, so 20 points tell no more than one.
    rng = np.random.default_rng(2)
    short = [rng.normal(0, 100, (1, 2)).astype(np.float32) for _ in range(30)]
    off = [rng.normal(0, 50, (1, 2)).astype(np.float32) for _ in range(30)]
    long = [np.repeat(t, 20, axis=0) for t in short]
    decoded = [t + o for t, o in zip(short, off, strict=True)]
    decoded_long = [t + o for t, o in zip(long, off, strict=True)]
    assert bootstrap_r2(long, decoded_long) == pytest.approx(bootstrap_r2(short, decoded), rel=1e-6)


def test_a_paired_difference_is_narrower_than_the_intervals() -> None:
    rng = np.random.default_rng(3)
    true, (decoded,) = _trials(rng, [8] * 40, 80)
    shifted = [d + np.float32(20) for d in decoded]
    low, high = bootstrap_r2(true, decoded)
    paired_low, paired_high = bootstrap_r2_difference(true, decoded, shifted)
    assert 0 < paired_low < paired_high
    assert paired_high - paired_low < (high - low) / 2


def test_trials_without_points_change_nothing() -> None:
    true, (decoded,) = _trials(np.random.default_rng(4), [4] * 10, 50)
    none = np.empty((0, 2), np.float32)
    assert bootstrap_r2([none, *true], [none, *decoded]) == bootstrap_r2(true, decoded)


def test_too_little_to_resample_is_nan() -> None:
    true, (decoded,) = _trials(np.random.default_rng(5), [4], 50)
    assert np.isnan(bootstrap_r2(true, decoded)).all()
    still = [np.full((3, 2), 7.0, np.float32)] * 4
    assert np.isnan(bootstrap_r2(still, still)).all()


def test_draws_of_one_point_only_are_left_out() -> None:
    true = [np.array([[0, 0]], np.float32), np.array([[10, 10]], np.float32)]
    decoded = [np.array([[1, 1]], np.float32), np.array([[9, 9]], np.float32)]
    # The one kind of draw that is left holds each trial once.
    assert bootstrap_r2(true, decoded) == pytest.approx((0.96, 0.96))
