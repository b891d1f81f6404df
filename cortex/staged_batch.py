"""A batch of events as one piece of memory, in few shapes: one copy takes it to a GPU.

Shapes: B rows, E events of the fullest row.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cortex.power_of_two import power_of_two
from cortex.ragged_events import RaggedEvents
from kernels.event_placement import ListedEvents

# GPUs read a column's first bytes at once.
_ALIGNMENT = 128
# So few rows take about as long whatever their number.
_FEW_ROWS = 8


class BatchShape(NamedTuple):
    """The shape of a batch that is filled up, one of few.

    Attributes:
        rows: windows or streams B.
        events: events E that there is room for in each; those that are not there cost nothing.
    """

    rows: int
    events: int

    @classmethod
    def holding(cls, rows: int, events: int) -> "BatchShape":
        """The smallest that holds so many."""
        return cls(_rows_held(rows), power_of_two(events))


def row_counts(most: int) -> list[int]:
    """The rows B of all shapes that hold `most` rows or fewer, ascending."""
    counts = [1]
    while counts[-1] < most:
        counts.append(_rows_held(counts[-1] + 1))
    return counts


def _rows_held(least: int) -> int:
    """Rows are computed whether they are real or not: of many, less than a quarter is not."""
    power = power_of_two(least)
    grain = max(power // 8, 1) if power > _FEW_ROWS else power
    return -(-least // grain) * grain


class StagedBatch(NamedTuple):
    """Slots and events of a batch as views of one buffer.

    Attributes:
        slot_B: streams' slots.
        events: the rows' events.
    """

    slot_B: Tensor
    events: ListedEvents

    @classmethod
    def in_buffer(cls, buffer: Tensor, shape: BatchShape) -> "StagedBatch":
        """Views of uint8 memory of `staged_bytes(shape)` bytes."""
        columns, start = [], 0
        for dtype, size in _columns(shape):
            n_bytes = size * dtype.itemsize
            columns.append(buffer[start : start + n_bytes].view(dtype))
            start += _aligned(n_bytes)
        slot, starts, unit, time_bin, value = columns
        return cls(slot, ListedEvents(unit, time_bin, value, starts))


class BatchWriter:
    """Fills a batch in on the host, one after another."""

    def __init__(self, batch: StagedBatch) -> None:
        """Args: where to write."""
        self._slot_B = batch.slot_B.numpy()
        self._unit_N, self._bin_N, self._value_N, self._start_B1 = (
            column.numpy() for column in batch.events
        )
        self._start_B1[0] = 0

    def write(self, events: RaggedEvents, slot_B: npt.NDArray[np.int64], spare_slot: int) -> None:
        """Writes no more rows than there is room for; the rest are rows without events.

        Args:
            events: valid events in time order.
            slot_B: the rows' slots, where they are steps of streams.
            spare_slot: the slot of the rest.
        """
        n_events, after = len(events.unit), len(events) + 1
        self._unit_N[:n_events] = events.unit
        self._bin_N[:n_events] = events.time_bin
        self._value_N[:n_events] = events.value
        np.cumsum(events.count_B, out=self._start_B1[1:after])
        self._start_B1[after:] = n_events
        self._slot_B[: len(slot_B)] = slot_B
        self._slot_B[len(slot_B) :] = spare_slot


def staged_bytes(shape: BatchShape) -> int:
    """Bytes of a batch of a shape."""
    return sum(_aligned(size * dtype.itemsize) for dtype, size in _columns(shape))


def _columns(shape: BatchShape) -> list[tuple[torch.dtype, int]]:
    """Types and sizes: of slots, rows' starts, units, time bins and values."""
    n_events = shape.rows * shape.events
    return [
        (torch.int64, shape.rows),
        (torch.int32, shape.rows + 1),
        *[(torch.int32, n_events)] * 3,
    ]


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
