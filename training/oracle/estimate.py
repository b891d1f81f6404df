"""The oracle's estimate of velocity: the mean over the reaches that a trial's spikes allow."""

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cortex.session import FloatArray
from training.oracle.reach_posterior import PosteriorConfig, ReachPosterior
from training.oracle.simulated_session import SimulatedTrial
from training.oracle.spike_likelihood import TrialConstants


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Velocity at a trial's labelled steps, in mm/s.

    Attributes:
        causal: (n, 2) given the trial's spikes up to the end of each step.
        smoothed: (n, 2) given all of its spikes.
    """

    causal: FloatArray
    smoothed: FloatArray


def estimate(trial: SimulatedTrial, config: PosteriorConfig, device: str, seed: int) -> Estimate:
    """Estimates a trial. Each trial draws from a generator of its own, whatever came before it."""
    own_seed = int(np.random.SeedSequence([seed, trial.index]).generate_state(1)[0])
    posterior = ReachPosterior(TrialConstants(trial.observed, device), config, own_seed)
    ms_in_bin = torch.arange(-trial.bin_ms, 0, device=device)
    causal = torch.zeros(len(trial.step_stop_ms), 2, device=device)
    for row, stop_ms in enumerate(trial.step_stop_ms.tolist()):
        posterior.advance(stop_ms)
        causal[row] = posterior.velocity(stop_ms + ms_in_bin).mean(1)
    posterior.advance(len(trial.observed.silence))
    stop_ms_N = torch.as_tensor(trial.step_stop_ms, device=device)
    at_ms_NB = stop_ms_N[:, None] + ms_in_bin
    smoothed = posterior.velocity(at_ms_NB.flatten()).view(2, *at_ms_NB.shape).mean(2).T
    return Estimate(causal=causal.cpu().numpy(), smoothed=smoothed.cpu().numpy())


def estimate_all(
    trials: Iterable[SimulatedTrial],
    config: PosteriorConfig,
    device: str,
    seed: int,
    processes: int = 1,
) -> Iterator[Estimate]:
    """Estimates trials, in their order, each as soon as those before it are done.

    Args:
        trials: the trials.
        config: how many particles, and how they move.
        device: where to compute.
        seed: of all that is random.
        processes: how many compute side by side, on one thread each; 1 for this one.
    """
    each = partial(estimate, config=config, device=device, seed=seed)
    if processes == 1:
        yield from map(each, trials)
        return
    # Forked, a process could not use CUDA.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap(each, trials)
