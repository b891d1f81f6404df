"""The last steps of a window alone are what they are among all, in either form."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from cortex.event_batch import collate
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid
from kernels.dispatch import Form, forced

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("steps", [1, 3, 6])
@pytest.mark.parametrize("form", ["torch", "triton"])
@torch.inference_mode()
def test_the_last_steps_alone_are_what_they_are_among_all(form: Form, steps: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        n_units=6, grid=TimeGrid(window_steps=5), dim=64, blocks=2, heads=2, movements=2
    )
    model = Model(config).to(DEVICE).eval().prepare()
    counts = torch.randint(0, 2, (4 * steps, 6)).numpy()
    samples = [Events.from_counts(counts), Events.empty(), Events.from_counts(counts[::-1].copy())]
    batch = collate(samples, n_steps=steps, bins_per_step=4).to(DEVICE)
    with forced(form):
        query = model.velocity_query(torch.tensor([1, 3], device=DEVICE), steps)
        every = model.decode(batch, query)
        for last in {1, min(steps, 2)}:
            torch.testing.assert_close(model.decode(batch, query, last), every[:, -last:])
