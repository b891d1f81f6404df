"""Buckets hold what they must, and what fills them up changes nothing."""

import numpy as np
import pytest
import torch

from cortex.bucket import bucket, padded
from cortex.event_batch import collate
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid


@pytest.mark.parametrize(("number", "size"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_buckets_are_powers_of_two(number: int, size: int) -> None:
    assert bucket(number) == size


def test_a_bucket_has_a_least_size() -> None:
    assert bucket(3, least=8) == 8


def test_padding_changes_no_answer() -> None:
    torch.manual_seed(0)
    grid = TimeGrid(window_steps=4)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=grid, movements=2)).eval()
    samples = [
        Events.from_counts(np.random.default_rng(seed).poisson(0.3, (grid.window_bins, 6)))
        for seed in range(3)
    ]
    batch = collate(samples, n_steps=4, bins_per_step=grid.bins_per_step)
    wide = padded(batch)
    assert len(wide.unit_BSE) == 4
    assert wide.unit_BSE.shape[2] > batch.unit_BSE.shape[2]
    with torch.no_grad():
        answers, padded_answers = (model(b, torch.tensor([3])) for b in (batch, wide))
    torch.testing.assert_close(padded_answers[:3], answers)
