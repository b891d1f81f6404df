"""Evidence for kinds of movement: sums by hand, over the steps that count."""

import torch

from cortex.event_batch import collate
from cortex.events import Events
from cortex.evidence import Evidence
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid


def _evidence() -> Evidence:
    grid = TimeGrid(bins_per_step=2, window_steps=4)
    config = ModelConfig(n_units=5, grid=grid, dim=8, heads=2, event_steps=3, movements=2)
    evidence = Evidence(config)
    with torch.no_grad():
        evidence.unit.weight.normal_()
        evidence.bias_N.normal_()
    return evidence


def test_logits_add_up_the_spikes_of_the_last_steps() -> None:
    evidence = _evidence()
    counts = torch.randint(0, 4, (12, 5))
    batch = collate([Events.from_counts(counts.numpy())], n_steps=6, bins_per_step=2)
    by_step = counts.view(6, 2, 5).sum(1).double()
    logits = evidence(batch)[0]
    for step in range(6):
        first = max(step - 2, 0)
        said = by_step[first : step + 1].sum(0) @ evidence.unit.weight.double()
        expected = said / (step + 1 - first) ** 0.5 + evidence.bias_N
        torch.testing.assert_close(logits[step].double(), expected, rtol=1e-5, atol=1e-5)


def test_silence_leaves_the_prior() -> None:
    evidence = _evidence()
    batch = collate([Events.empty()], n_steps=4, bins_per_step=2)
    torch.testing.assert_close(evidence(batch), evidence.bias_N.expand(1, 4, 2))


def test_a_fresh_model_takes_no_side() -> None:
    grid = TimeGrid(window_steps=4)
    fresh = Evidence(ModelConfig(n_units=5, grid=grid, movements=3))
    assert not fresh.unit.weight.any() and not fresh.bias_N.any()
