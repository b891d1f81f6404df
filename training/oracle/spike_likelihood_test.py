"""The likelihood: that of the simulator, whatever the span, the power and the chunk."""

import numpy as np
import pytest
import torch

from cortex.data.reaches import Reach, _minimum_jerk
from cortex.data.simulator import log_rates
from training.oracle import spike_likelihood
from training.oracle.observed_trial import observe
from training.oracle.reach_prior import DIMENSIONS, Reaches, reaches_at
from training.oracle.spike_likelihood import SpikeLikelihood, TrialConstants
from training.oracle.trials_for_tests import one_trial

TUNING, REACH, SPIKES = one_trial(units=12)
N_MS = len(SPIKES)


def _reaches(n: int) -> Reaches:
    return reaches_at(torch.randn(n, DIMENSIONS, generator=torch.Generator().manual_seed(1)))


def _by_definition(reaches: Reaches, which: int, start: int, stop: int) -> float:
    """Log likelihood from the simulator's own rates, a millisecond at a time."""
    one = {name: values[..., which].numpy() for name, values in vars(reaches).items()}
    velocity = np.zeros((N_MS + 2000, 2))
    for stroke, on in (("first", "onset"), ("second", "second_on")):
        first, length = int(one[on]), int(one[stroke])
        velocity[first : first + length] += _minimum_jerk(length)[:, None] * one[f"{stroke}_step"]
    reach = Reach(
        position=velocity,
        velocity=velocity[: N_MS + 200],
        target=one["heading"].astype(np.float64),
        target_on_ms=int(one["target_on"]),
        go_cue_ms=0,
        move_onset_ms=int(one["onset"]),
    )
    rate = log_rates(reach, TUNING, N_MS)
    refractory, rebound, total = np.zeros(12), np.zeros(12), 0.0
    for ms, fired in enumerate(SPIKES):
        mean = np.exp(rate[ms] + 0.4 * rebound - 6.0 * refractory) * 1e-3
        if start <= ms < stop:
            total += np.log(-np.expm1(-mean[fired])).sum() - mean[~fired].sum()
        refractory = refractory * np.exp(-1 / 3) + fired
        rebound = rebound * np.exp(-1 / 15) + fired
    return total


@pytest.mark.parametrize(("start", "stop"), [(0, N_MS), (900, 1300), (400, 420)])
def test_cells_of_a_millisecond_are_exact(start: int, stop: int) -> None:
    reaches = _reaches(8)
    likelihood = SpikeLikelihood(
        TrialConstants(observe(SPIKES, TUNING), "cpu", 1), (start, stop, 1)
    )
    expected = np.array([_by_definition(reaches, which, start, stop) for which in range(8)])
    computed = likelihood(reaches).numpy()
    # Only differences between reaches mean anything.
    np.testing.assert_allclose(computed - computed[0], expected - expected[0], atol=5e-3)


def test_wider_cells_come_close() -> None:
    reaches, trial = _reaches(50), observe(SPIKES, TUNING)
    exact, wide = (
        SpikeLikelihood(TrialConstants(trial, "cpu", cell), (0, N_MS, 1))(reaches)
        for cell in (1, spike_likelihood.CELL_MS)
    )
    # Likelihoods differ by tens between these reaches.
    assert exact.std() > 10
    assert ((exact - exact[0]) - (wide - wide[0])).abs().max() < 0.5


def test_spans_add_up_and_powers_multiply() -> None:
    reaches, trial = _reaches(20), TrialConstants(observe(SPIKES, TUNING), "cpu")
    past, new, both, half = (
        SpikeLikelihood(trial, *spans)(reaches)
        for spans in (
            [(0, 1000, 1.0)],
            [(1000, 1100, 1.0)],
            [(0, 1100, 1.0)],
            [(0, 1000, 1.0), (1000, 1100, 0.5)],
        )
    )
    torch.testing.assert_close(past + new, both, rtol=0, atol=5e-3)
    torch.testing.assert_close(past + new / 2, half, rtol=0, atol=5e-3)
    assert new.abs().max() > 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reaches = _reaches(20)
    likelihood = SpikeLikelihood(TrialConstants(observe(SPIKES, TUNING), "cpu"), (0, N_MS, 1))
    whole = likelihood(reaches)
    monkeypatch.setattr(spike_likelihood, "CPU_ELEMENTS", 1)
    torch.testing.assert_close(likelihood(reaches), whole)


def test_units_that_never_fire_are_left_out() -> None:
    silent = ~np.isfinite(TUNING.log_rate)
    assert silent.any()
    assert observe(SPIKES, TUNING).silence.shape == (N_MS, (~silent).sum())
