"""Models and batches of random numbers, for benchmarks on a GPU."""

import torch

from cortex.event_batch import EventBatch
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid


def make_model(size: str, units: int) -> Model:
    """A model of random weights on the GPU."""
    torch.manual_seed(0)
    config = ModelConfig.of_size(size, n_units=units, grid=TimeGrid())
    return Model(config).eval().cuda()


def make_batch(model: Model, samples: int, steps: int, events: int) -> EventBatch:
    """Random events, as many in every sample, of varying number in its steps."""
    config = model.config
    torch.manual_seed(1)
    step = torch.randint(steps, (samples, events)).sort(1).values
    rank = torch.arange(events) - torch.searchsorted(step, step)
    width = int(rank.max()) + 1
    mask = torch.zeros((samples, steps, width), dtype=torch.bool)
    mask[torch.arange(samples)[:, None], step, rank] = True
    shape = (samples, steps, width)
    return EventBatch(
        unit_BSE=torch.randint(config.n_units, shape) * mask,
        phase_BSE=torch.randint(config.grid.bins_per_step, shape) * mask,
        value_BSE=torch.randint(1, 3, shape) * mask,
        mask_BSE=mask,
        count_BS=mask.sum(-1),
    ).to(torch.device("cuda"))
