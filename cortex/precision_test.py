"""A bfloat16 decoder answers nearly the same, and leaves the checkpoint as it was."""

import numpy as np
import pytest
import torch

from cortex.checkpoint import Checkpoint
from cortex.decoder import Decoder
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid

GRID = TimeGrid(window_steps=5)


@pytest.mark.parametrize("movements", [1, 3])
def test_a_copy_is_rounded(movements: int) -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID, movements=movements))
    with torch.no_grad():
        model.velocity_mean += 1.001
        model.velocity_scale *= 33.003
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint = Checkpoint(
        model=model, name="nano", unit_ids=tuple("abcdef"), velocity_unit="mm/s"
    )
    exact = Decoder(checkpoint)
    rounded = Decoder(checkpoint, precision="bf16")
    window = Events.from_counts(np.random.default_rng(0).poisson(0.3, (GRID.window_bins, 6)))
    expected, answer = exact.decode([window]), rounded.decode([window])
    assert answer.dtype == np.float32
    assert not np.array_equal(answer, expected)
    np.testing.assert_allclose(answer, expected, rtol=0.05, atol=0.05 * np.abs(expected).max())
    slot = rounded.open()
    for step in range(GRID.window_steps):
        part = window.between(4 * step, 4 * step + 4).shifted(-4 * step)
        streamed = rounded.step([slot], [part])
    np.testing.assert_allclose(streamed, answer, rtol=0.05, atol=0.05 * np.abs(expected).max())
    after = checkpoint.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
