"""A checkpoint of random weights: as fast as a trained one, and nobody has to train it."""

from pathlib import Path

import torch

from cortex.checkpoint import Checkpoint, save_checkpoint
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid


def save_random_checkpoint(folder: Path, *, size: str, units: int) -> None:
    """Writes one, always the same.

    Args:
        folder: where to.
        size: the model's size, by name.
        units: units in its vocabulary.

    Raises:
        InputError: the size is unknown, or the folder cannot be written.
    """
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size(size, n_units=units, grid=TimeGrid()))
    checkpoint = Checkpoint(
        model=model.eval(),
        name=f"{size} of random weights",
        unit_ids=tuple(f"unit{index}" for index in range(units)),
        velocity_unit="mm/s",
    )
    save_checkpoint(checkpoint, folder)
