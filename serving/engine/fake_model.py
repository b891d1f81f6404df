"""A model for tests: it answers what it was told, when it is told, and fails on request."""

import time

import numpy as np

from cortex.ragged_events import RaggedEvents
from cortex.time_grid import TimeGrid
from serving.engine.model import MAX_IN_FLIGHT, IntArray, Velocity

RAISE, NOT_A_NUMBER, TOO_FEW, FAULT, KILL = 1001, 1002, 1003, 1004, 1005


class DeviceFault(Exception):
    """Stands for an error after which a device is of no use."""


class FakePending:
    """A launch of the fake model: its computing is done, and its errors kept until `wait`."""

    def __init__(self, model: "FakeModel", result: Velocity | BaseException) -> None:
        """Args: whose launch it is, and what comes of it."""
        self._model = model
        self._result = result
        self._ends_at = model.free_at = max(model.free_at, time.monotonic()) + model.delay_s

    def done(self) -> bool:
        """Whether the model is quick, or the batch has taken its time."""
        if self._model.delay_s:
            return time.monotonic() >= self._ends_at
        return not self._model.slow

    def wait(self) -> Velocity:
        """What was computed."""
        if self._model.delay_s:
            time.sleep(max(self._ends_at - time.monotonic(), 0.0))
        self._model.ended.append(self)
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


class FakeModel:
    """Answers (sum of values, number of events) of a window, and of a stream so far.

    An event whose value is one of the constants above makes it fail in that way.

    Attributes:
        batches: rows of each batch so far.
        resets: slots and first steps that were reset so far.
        ended: a launch each that was waited for, so far.
        free_at: when all that was launched will have taken its time.
    """

    name = "fake"
    velocity_unit = "mm/s"

    def __init__(
        self,
        *,
        n_units: int = 8,
        slots: int = 4,
        slow: bool = False,
        delay_s: float = 0.0,
        digest: str = "f" * 64,
        window_steps: int = 8,
    ) -> None:
        """Makes a model.

        Args:
            n_units: units.
            slots: stream slots.
            slow: launches are not done until they are waited for.
            delay_s: seconds that a batch takes, one after another.
            digest: of the weights.
            window_steps: steps in a window.
        """
        self.grid = TimeGrid(bin_us=5_000, bins_per_step=4, window_steps=window_steps)
        self.unit_ids = tuple(f"unit{index}" for index in range(n_units))
        self.digest = digest
        self.slots = slots
        self.slow = slow
        self.delay_s = delay_s
        self.free_at = 0.0
        self.batches: list[int] = []
        self.resets: list[tuple[int, int]] = []
        self.ended: list[FakePending] = []
        self._total_S2 = np.full((slots, 2), np.nan, np.float32)

    def launch_windows(self, events: RaggedEvents) -> FakePending:
        """Each window's (sum, count)."""
        return self._launch(events, _sums(events))

    def launch_steps(self, slot_B: IntArray, events: RaggedEvents) -> FakePending:
        """Each stream's (sum, count) so far."""
        assert len(set(slot_B.tolist())) == len(slot_B) == len(events)
        self._total_S2[slot_B] += _sums(events)
        return self._launch(events, self._total_S2[slot_B])

    def reset(self, slot_B: IntArray, first_step_B: IntArray) -> None:
        """Streams begin with (0, 0)."""
        self._total_S2[slot_B] = 0
        self.resets += zip(slot_B.tolist(), first_step_B.tolist(), strict=True)

    def window_shapes(self, max_rows: int) -> list[tuple[int, int]]:
        """One window, and as many as may be."""
        return [(1, 8), (max_rows, 8)]

    def step_shapes(self, max_rows: int) -> list[tuple[int, int]]:
        """One step, and as many as may be."""
        return [(1, 2), (max_rows, 2)]

    def _launch(self, events: RaggedEvents, answers: Velocity) -> FakePending:
        self.batches.append(len(events))
        assert len(self.batches) - len(self.ended) <= MAX_IN_FLIGHT
        asked = set(events.value.tolist())
        if FAULT in asked:
            return FakePending(self, DeviceFault("asked to fault"))
        if KILL in asked:
            return FakePending(self, SystemExit("asked to die"))
        if RAISE in asked:
            return FakePending(self, RuntimeError("asked to raise"))
        row = np.repeat(np.arange(len(events)), events.count_B)
        answers[row[events.value == NOT_A_NUMBER]] = np.nan
        return FakePending(self, answers[:-1] if TOO_FEW in asked else answers)


def _sums(events: RaggedEvents) -> Velocity:
    row = np.repeat(np.arange(len(events)), events.count_B)
    total = np.bincount(row, weights=events.value, minlength=len(events))
    return np.stack([total, events.count_B], 1).astype(np.float32)
