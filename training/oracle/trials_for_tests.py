"""Simulated trials and their truth, for tests."""

import numpy as np
import numpy.typing as npt

from cortex.data.reaches import Reach
from cortex.data.simulator import SimulatorConfig, Tuning, draw_truth, log_rates


def one_trial(
    units: int = 30, seed: int = 0, log_rate_mean: float = 3.0
) -> tuple[Tuning, Reach, npt.NDArray[np.bool_]]:
    """Tuning, a reach, and its spikes (ms, units), a millisecond at a time from the definition."""
    config = SimulatorConfig(trials=1, units=units, seed=seed, log_rate_mean=log_rate_mean)
    rng = np.random.default_rng(seed)
    tuning, (reach,) = draw_truth(config, rng)
    n_ms = len(reach.velocity)
    rate = log_rates(reach, tuning, n_ms)
    spikes = np.zeros((n_ms, units), np.bool_)
    refractory, rebound = np.zeros(units), np.zeros(units)
    for ms in range(n_ms):
        mean = np.exp(rate[ms] + 0.4 * rebound - 6.0 * refractory) * 1e-3
        spikes[ms] = rng.random(units) < -np.expm1(-mean)
        refractory = refractory * np.exp(-1 / 3) + spikes[ms]
        rebound = rebound * np.exp(-1 / 15) + spikes[ms]
    return tuning, reach, spikes
