"""The posterior: the prior without spikes, the truth with many, and never ahead of time."""

import numpy as np
import pytest
import torch

from cortex.errors import InputError
from training.oracle.observed_trial import observe
from training.oracle.reach_posterior import PosteriorConfig, ReachPosterior
from training.oracle.spike_likelihood import TrialConstants
from training.oracle.trials_for_tests import one_trial

CONFIG = PosteriorConfig(particles=200)


def _velocity(posterior: ReachPosterior, ms: int) -> np.ndarray:
    return posterior.velocity(torch.tensor([ms]))[:, 0].numpy()


def test_without_spikes_it_is_the_prior() -> None:
    tuning, _, spikes = one_trial(units=5)
    config = PosteriorConfig(particles=5000)
    posterior = ReachPosterior(TrialConstants(observe(spikes, tuning), "cpu"), config, 0)
    # Every direction is as likely as its opposite, at some 300 mm/s.
    assert np.abs(_velocity(posterior, 1400)).max() < 20


def test_with_many_spikes_it_is_the_truth() -> None:
    tuning, reach, spikes = one_trial(units=60, log_rate_mean=4.0)
    posterior = ReachPosterior(TrialConstants(observe(spikes, tuning), "cpu"), CONFIG, 0)
    posterior.advance(len(spikes))
    at_ms = np.arange(reach.move_onset_ms - 100, len(reach.velocity), 20)
    estimate = posterior.velocity(torch.from_numpy(at_ms)).T.numpy()
    error = estimate - reach.velocity[at_ms]
    assert np.sqrt((error**2).mean()) < 0.08 * np.abs(reach.velocity).max()


def test_later_spikes_change_nothing() -> None:
    tuning, reach, spikes = one_trial(units=20)
    cut = reach.move_onset_ms + 100
    altered = spikes.copy()
    altered[cut:] = np.roll(spikes[cut:], 1, axis=1)
    estimates = []
    for each in (spikes, altered):
        posterior = ReachPosterior(TrialConstants(observe(each, tuning), "cpu"), CONFIG, 3)
        posterior.advance(cut - 200)
        posterior.advance(cut)
        then = _velocity(posterior, cut)
        posterior.advance(len(each))
        estimates.append((then, _velocity(posterior, cut)))
    (before, after), (before_altered, after_altered) = estimates
    assert np.array_equal(before, before_altered)
    assert np.abs(after - after_altered).max() > 1


def test_seeds_and_the_order_of_taking_in_hardly_matter() -> None:
    tuning, reach, spikes = one_trial(units=40)
    stop = reach.move_onset_ms + 250
    estimates = []
    for seed, pieces in ((0, [stop]), (1, range(100, stop + 1, 50))):
        posterior = ReachPosterior(TrialConstants(observe(spikes, tuning), "cpu"), CONFIG, seed)
        for piece in pieces:
            posterior.advance(piece)
        posterior.advance(stop)
        estimates.append(_velocity(posterior, stop))
    assert np.abs(estimates[0] - estimates[1]).max() < 0.1 * np.abs(reach.velocity).max()


def test_too_few_particles_are_refused() -> None:
    with pytest.raises(InputError, match="particles is 10, expected at least 44"):
        PosteriorConfig(particles=10)
