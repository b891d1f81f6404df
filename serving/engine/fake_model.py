"""A model for tests: it answers what it was told, and fails on request."""

import time
from collections.abc import Sequence

import numpy as np

from cortex.errors import InputError
from cortex.events import Events
from cortex.time_grid import TimeGrid
from serving.engine.model import Velocity

RAISE, NOT_A_NUMBER, TOO_FEW, FAULT = 1001, 1002, 1003, 1004


class DeviceFault(Exception):
    """Stands for an error after which a device is of no use."""


class FakeModel:
    """Answers (sum of values, number of events) of a window, and of a stream so far.

    An event whose value is one of the constants above makes it fail in that way.
    """

    digest = "f" * 64
    name = "fake"
    velocity_unit = "mm/s"

    def __init__(self, *, n_units: int = 8, max_streams: int = 4, delay_s: float = 0.0) -> None:
        """Args: units, stream slots, and seconds that a batch takes."""
        self.grid = TimeGrid(bin_us=5_000, bins_per_step=4, window_steps=8)
        self.unit_ids = tuple(f"unit{index}" for index in range(n_units))
        self.batches: list[int] = []
        self._free = list(range(max_streams))
        self._state: dict[int, tuple[float, float, int]] = {}
        self._delay_s = delay_s

    def decode(self, windows: Sequence[Events]) -> Velocity:
        """Each window's (sum, count)."""
        return self._answer(windows, [(0.0, 0.0)] * len(windows))

    def open(self) -> int:
        """A slot, or InputError."""
        if not self._free:
            raise InputError("every stream slot is taken")
        slot = self._free.pop()
        self._state[slot] = (0.0, 0.0, 0)
        return slot

    def close(self, slot: int) -> None:
        """Frees a slot."""
        del self._state[slot]
        self._free.append(slot)

    def step(self, slots: Sequence[int], events: Sequence[Events]) -> Velocity:
        """Each stream's (sum, count) so far."""
        assert len(set(slots)) == len(slots)
        rows = self._answer(events, [self._state[slot][:2] for slot in slots])
        for slot, row in zip(slots, rows, strict=False):
            self._state[slot] = (float(row[0]), float(row[1]), self._state[slot][2] + 1)
        return rows

    def context_steps(self, slot: int) -> int:
        """Steps since the stream opened, at most the window."""
        return min(self._state[slot][2], self.grid.window_steps)

    def _answer(self, events: Sequence[Events], before: Sequence[tuple[float, float]]) -> Velocity:
        self.batches.append(len(events))
        if self._delay_s:
            time.sleep(self._delay_s)
        asked = {int(value) for each in events for value in each.value}
        if RAISE in asked:
            raise RuntimeError("asked to raise")
        if FAULT in asked:
            raise DeviceFault("asked to fault")
        rows = np.array(
            [
                (total + each.value.sum(), count + len(each))
                for each, (total, count) in zip(events, before, strict=True)
            ],
            np.float32,
        ).reshape(-1, 2)
        for row, each in zip(rows, events, strict=True):
            if NOT_A_NUMBER in each.value:
                row[:] = np.nan
        return rows[:-1] if TOO_FEW in asked else rows
