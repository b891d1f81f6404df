"""What the engine needs of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cortex.ragged_events import RaggedEvents
from cortex.time_grid import TimeGrid

Velocity = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
# While one batch runs, the next is collated and copied. A third would only wait.
MAX_IN_FLIGHT = 2


class Pending(Protocol):
    """A batch under way. What was launched first ends first."""

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def wait(self) -> Velocity:
        """(B, 2) velocities, or the error that the batch failed with; called once, on any thread.

        It lets other threads run meanwhile.
        """


class Model(Protocol):
    """A decoder of whole windows and of streams.

    One thread calls it, the one that built it. At most MAX_IN_FLIGHT launches have not ended.

    Attributes:
        digest: SHA-256 of the weights, in hex.
        name: name for people.
        grid: the time grid that it was trained on.
        unit_ids: names of the units, in the order of their indices.
        velocity_unit: physical unit of the answers, such as "mm/s".
        slots: streams that it keeps the state of, numbered from 0.
    """

    digest: str
    name: str
    grid: TimeGrid
    unit_ids: tuple[str, ...]
    velocity_unit: str
    slots: int

    def launch_windows(self, events: RaggedEvents) -> Pending:
        """Begins to decode B windows, each at its last bin. Time bins are in [0, window_bins)."""

    def launch_steps(self, slot_B: IntArray, events: RaggedEvents) -> Pending:
        """Begins to advance B distinct slots by one step. Time bins are in [0, bins_per_step)."""

    def reset(self, slot_B: IntArray, first_step_B: IntArray) -> None:
        """Makes B distinct slots empty streams whose first step has the number given.

        It takes effect after what was launched before it, and before what is launched after.
        """

    def window_shapes(self, max_rows: int) -> Sequence[tuple[int, int]]:
        """The batches to rehearse before serving: (windows, events of the fullest).

        Args:
            max_rows: windows in a batch at most.
        """

    def step_shapes(self, max_rows: int) -> Sequence[tuple[int, int]]:
        """The batches to rehearse before serving: (steps, events of the fullest).

        Args:
            max_rows: steps in a batch at most.
        """


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
