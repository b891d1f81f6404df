"""A batch of events as one piece of memory, in few shapes: one copy takes it to a GPU.

Shapes: B rows, S steps, E events a step.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cortex.event_batch import EventBatch, EventPlaces
from cortex.ragged_events import RaggedEvents

LEAST_EVENTS = 8
# GPUs read a column's first bytes at once.
_ALIGNMENT = 128


@dataclass(frozen=True)
class BatchShape:
    """The shape of a padded batch, one of few.

    Attributes:
        rows: windows or streams B.
        steps: steps S of each.
        events: events E of the fullest step.
    """

    rows: int
    steps: int
    events: int

    @classmethod
    def holding(cls, rows: int, steps: int, events: int) -> "BatchShape":
        """The powers of two that hold so many."""
        return cls(power_of_two(rows), steps, power_of_two(max(events, LEAST_EVENTS)))


def power_of_two(least: int) -> int:
    """The smallest that is not less."""
    return 1 << max(least - 1, 0).bit_length()


@dataclass(frozen=True)
class StagedBatch:
    """Slots and events of a batch as views of one buffer.

    Attributes:
        slot_B: streams' slots.
        events: the events; what no event fills is not read.
    """

    slot_B: Tensor
    events: EventBatch

    @classmethod
    def in_buffer(cls, buffer: Tensor, shape: BatchShape) -> "StagedBatch":
        """Views of uint8 memory of `staged_bytes(shape)` bytes."""
        columns, start = [], 0
        for dtype, size in _columns(shape):
            n_bytes = prod(size) * dtype.itemsize
            columns.append(buffer[start : start + n_bytes].view(dtype).view(size))
            start += _aligned(n_bytes)
        slot, unit, value, phase, mask, count = columns
        return cls(
            slot,
            EventBatch(
                unit_BSE=unit, phase_BSE=phase, value_BSE=value, mask_BSE=mask, count_BS=count
            ),
        )

    def fill(
        self,
        events: RaggedEvents,
        places: EventPlaces,
        slot_B: npt.NDArray[np.int64],
        spare_slot: int,
    ) -> None:
        """Writes a batch of no more than B rows; the rest are rows without events.

        Args:
            events: valid events in time order.
            places: theirs, from `place_events`.
            slot_B: the rows' slots, where they are steps of streams.
            spare_slot: the slot of the rest.
        """
        batch = self.events
        width = batch.unit_BSE.shape[2]
        place = places.group * width + places.rank
        for column, values in (
            (batch.unit_BSE, events.unit),
            (batch.value_BSE, events.value),
            (batch.phase_BSE, places.phase),
        ):
            column.numpy().reshape(-1)[place] = values
        count, n_steps = batch.count_BS.numpy().reshape(-1), len(places.counts)
        count[:n_steps], count[n_steps:] = places.counts, 0
        mask = batch.mask_BSE.numpy().reshape(-1, width)
        np.less(np.arange(width), count[:, None], out=mask)
        slot = self.slot_B.numpy()
        slot[: len(slot_B)], slot[len(slot_B) :] = slot_B, spare_slot


def staged_bytes(shape: BatchShape) -> int:
    """Bytes of a batch of a shape."""
    return sum(_aligned(prod(size) * dtype.itemsize) for dtype, size in _columns(shape))


def _columns(shape: BatchShape) -> list[tuple[torch.dtype, tuple[int, ...]]]:
    """Types, as small as values allow, and sizes."""
    padded: Any = (shape.rows, shape.steps, shape.events)
    return [
        (torch.int64, (shape.rows,)),
        (torch.int32, padded),
        (torch.int16, padded),
        (torch.int16, padded),
        (torch.bool, padded),
        (torch.int32, (shape.rows, shape.steps)),
    ]


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
