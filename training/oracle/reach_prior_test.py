"""The prior: the simulator's reaches, from standard normal points."""

import numpy as np
import torch

from cortex.data.reaches import random_reach
from training.oracle.reach_prior import DIMENSIONS, reaches_at

N = 3000


def test_reaches_are_distributed_as_the_simulators() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_reach(rng) for _ in range(N)]
    points = torch.randn(N, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    reaches = reaches_at(points.double())
    at_ms = np.arange(0, 2300, 50)
    speed = np.hypot(*reaches.velocity(torch.from_numpy(at_ms)[:, None]).numpy())
    simulated = np.zeros((len(at_ms), N))
    for i, reach in enumerate(drawn):
        inside = at_ms < len(reach.velocity)
        simulated[inside, i] = np.hypot(*reach.velocity[at_ms[inside]].T)
    # Standard errors are below 6 mm/s.
    np.testing.assert_allclose(speed.mean(1), simulated.mean(1), atol=20)
    np.testing.assert_allclose(speed.std(1), simulated.std(1), atol=20)
    target = (reaches.first_step + reaches.second_step).norm(dim=0)
    assert np.allclose(np.quantile(target, [0, 0.5, 1]), [90, 120, 150], atol=1.5)
    for name in ("target_on", "onset"):
        of_reach = [getattr(r, {"onset": "move_onset_ms"}.get(name, f"{name}_ms")) for r in drawn]
        shares = [0.05, 0.5, 0.95]
        ours = np.quantile(getattr(reaches, name), shares)
        np.testing.assert_allclose(ours, np.quantile(of_reach, shares), atol=20)


def test_far_points_stay_in_range() -> None:
    reaches = reaches_at(torch.full((1, DIMENSIONS), 30.0))
    assert int(reaches.target_on) == 499
    assert int(reaches.first) == int(reaches.second) == 479
