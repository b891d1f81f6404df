"""What the engine needs of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cortex.events import Events
from cortex.time_grid import TimeGrid

Velocity = npt.NDArray[np.float32]


class Model(Protocol):
    """A decoder of whole windows and of streams. Used by one thread only.

    Attributes:
        digest: SHA-256 of the weights, in hex.
        name: name for people.
        grid: the time grid that it was trained on.
        unit_ids: names of the units, in the order of their indices.
        velocity_unit: physical unit of the answers, such as "mm/s".
    """

    digest: str
    name: str
    grid: TimeGrid
    unit_ids: tuple[str, ...]
    velocity_unit: str

    def decode(self, windows: Sequence[Events]) -> Velocity:
        """(B, 2) velocities, one a window, at its last bin. Time bins are in [0, window_bins)."""

    def open(self) -> int:
        """The slot of a new, empty stream. Raises InputError when every slot is taken."""

    def close(self, slot: int) -> None:
        """Frees a slot."""

    def step(self, slots: Sequence[int], events: Sequence[Events]) -> Velocity:
        """(B, 2) velocities, each distinct slot advanced by one step.

        Time bins are in [0, bins_per_step).
        """

    def context_steps(self, slot: int) -> int:
        """Steps that the slot's last answer rests on, at most the window."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a client must know of a model. Fields as in Model."""

    name: str
    digest: str
    grid: TimeGrid
    unit_ids: tuple[str, ...]
    velocity_unit: str

    @classmethod
    def of(cls, model: Model) -> "ModelCard":
        """The card of a loaded model."""
        return cls(
            name=model.name,
            digest=model.digest,
            grid=model.grid,
            unit_ids=tuple(model.unit_ids),
            velocity_unit=model.velocity_unit,
        )
