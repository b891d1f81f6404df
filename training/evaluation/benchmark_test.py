"""The benchmark's protocol: its points, its lag, and what each decoder may see."""

from dataclasses import replace

import numpy as np
import pytest

from cortex.errors import InputError
from cortex.events import Events
from training.evaluation.benchmark import benchmark_points, score_benchmark, smooth
from training.evaluation.decoders_for_tests import known_decoders
from training.evaluation.reaches_for_tests import make_reaches

TRAIN, TEST = list(range(14)), list(range(14, 20))


def test_points_are_bins_around_the_onset_and_velocities_a_lag_later() -> None:
    session = make_reaches()
    points = benchmark_points(session, [3, 5], lag_s=0.12)
    assert points.velocity.shape == (2, 140, 2)
    for row, trial in enumerate([3, 5]):
        onset = int(session.trials.event_bins["move_onset"][trial])
        assert points.spikes_until[row].tolist() == list(range(onset - 50, onset + 90))
        moment = range(onset - 50 + 24, onset + 90 + 24)
        assert points.moment[row].tolist() == list(moment)
        assert np.array_equal(points.velocity[row], session.behavior.velocity[list(moment)])
        spikes = session.events.to_counts(140, 10, onset - 50)
        assert np.array_equal(points.spikes[row], spikes)
    assert points.left_out == 0


def test_bins_finer_than_the_benchmarks() -> None:
    session = make_reaches()
    fine = replace(session, grid=replace(session.grid, bin_us=2_500))
    onset = int(session.trials.event_bins["move_onset"][3])
    # 250 ms before the onset are 100 bins, more than the trial has before it.
    assert benchmark_points(fine, [3], lag_s=0.1).left_out == 1
    late = replace(fine.trials, start_bin=fine.trials.start_bin - 60)
    points = benchmark_points(replace(fine, trials=late), [3], lag_s=0.1)
    assert points.spikes_until[0, :2].tolist() == [onset - 99, onset - 97]
    assert points.moment[0, 0] == onset - 59
    expected = session.behavior.velocity[onset - 60 : onset - 58].mean(0)
    np.testing.assert_allclose(points.velocity[0, 0], expected, rtol=1e-6)


def test_trials_that_cortex_cannot_answer_in_time_are_left_out() -> None:
    session = make_reaches()
    onset = session.trials.event_bins["move_onset"]
    start = session.trials.start_bin.copy()
    # The first bin ends with the first step, or a bin before it.
    start[3], start[4] = onset[3] - 53, onset[4] - 52
    late = replace(session, trials=replace(session.trials, start_bin=start))
    points = benchmark_points(late, [3, 4], lag_s=0.1)
    assert (points.trial.tolist(), points.left_out) == ([3], 1)
    # Velocities from before their spikes ask for answers that are earlier still.
    assert benchmark_points(late, [3, 4], lag_s=-0.02).left_out == 2


def test_who_sees_what_and_how_well_they_do() -> None:
    session = make_reaches()
    result = score_benchmark(session, TRAIN, TEST, known_decoders(session))
    cortex, ahead, wiener, smoothed = result.figures
    assert [f.key for f in result.figures] == ["cortex", "cortex_ahead", "wiener", "ridge_smoothed"]
    assert [f.future_s for f in result.figures] == pytest.approx([0, -0.1, 0, 0.1])
    assert [f.causal for f in result.figures] == [True, True, True, False]
    assert smoothed.sees == "FUTURE, until 100 ms after"
    assert ahead.sees == "causal, until 100 ms before"
    assert {(f.trials, f.points) for f in result.figures} == {(6, 840)}
    # Answers are at most three bins old.
    assert 0.98 < cortex.r2 < 1
    assert wiener.r2 < cortex.r2
    # 100 ms ahead of a wave of 700 ms, from its velocity alone.
    assert 0.5 < ahead.r2 < 0.95
    assert smoothed.r2 > 0.6
    (difference,) = result.differences
    assert difference.r2 == pytest.approx(cortex.r2 - wiener.r2)


def test_without_a_lag_cortex_ahead_is_cortex_read_out() -> None:
    session = make_reaches()
    result = score_benchmark(session, TRAIN, TEST, known_decoders(session), lag_s=0.0)
    figures = {f.key: f for f in result.figures}
    # Offline answers are 0.5 off, which the ridge's intercept takes away again.
    assert figures["cortex_ahead"].r2 == pytest.approx(figures["cortex"].r2, abs=1e-3)
    assert figures["cortex_ahead"].causal


def test_smoothing_keeps_a_constant_rate_up_to_the_edges() -> None:
    rates = smooth(np.full((1, 140, 2), 3))
    np.testing.assert_allclose(rates, 3.0, rtol=1e-5)
    spike = np.zeros((1, 140, 1), np.int64)
    spike[0, 70] = 1
    around = smooth(spike)[0, :, 0]
    assert np.flatnonzero(around).tolist() == list(range(30, 111))
    assert around[80] / around[70] == pytest.approx(np.exp(-0.5), rel=1e-4)


def test_what_cannot_be_scored_is_bad_input() -> None:
    session = make_reaches()
    decoders = known_decoders(session)
    without = replace(session, trials=replace(session.trials, event_bins={}))
    with pytest.raises(InputError, match="no 'move_onset'"):
        score_benchmark(without, TRAIN, TEST, decoders)
    with pytest.raises(InputError, match="3 training trials to fit a ridge to, expected at least"):
        score_benchmark(session, [0, 1, 2], TEST, decoders)
    never = {"move_onset": np.full(20, -1)}
    nothing = replace(session, trials=replace(session.trials, event_bins=never))
    with pytest.raises(InputError, match="6 held-out trials hold 0 velocity labels"):
        score_benchmark(nothing, TRAIN, TEST, decoders)


def test_silence_is_scored_like_anything_else() -> None:
    session = make_reaches()
    silent = replace(session, events=Events.empty())
    result = score_benchmark(silent, TRAIN, TEST, known_decoders(session))
    assert result.figures[3].r2 < 0.3
