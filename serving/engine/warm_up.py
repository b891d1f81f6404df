"""Makes a model fast, and checks it, before anyone is served."""

from collections.abc import Callable

import numpy as np

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.errors import ModelError
from serving.engine.faults import check_velocity
from serving.engine.jobs import Kind
from serving.engine.model import Model, Pending, Velocity
from serving.engine.service_time import ServiceTime

# bfloat16 keeps 8 bits, and batches of other sizes add in another order.
_TOLERANCE = 0.02


def warm_up(
    model: Model, *, max_batch: int, max_step_batch: int, clock: Callable[[], float]
) -> ServiceTime:
    """Runs every batch that the model rehearses, and checks golden answers.

    A fixed pseudo-random window must be answered alone as in every batch, and the steps of a
    stream, alone and in the fullest batch of steps, must end with the answer to the window that
    they make up. The slots hold no stream afterwards.

    Args:
        model: the model.
        max_batch: windows in a batch at most.
        max_step_batch: steps in a batch at most.
        clock: seconds.

    Returns:
        The time of the second run of each batch.

    Raises:
        ModelError: an answer is not finite, not of the right shape, or not the golden one.
    """
    if model.slots < 1:
        raise ModelError(f"golden check: the model has {model.slots} stream slots, expected some")
    rehearsal = _Rehearsal(model, clock)
    for rows, events in model.window_shapes(max_batch):
        rehearsal.windows(rows, events)
    step_shapes = model.step_shapes(min(max_step_batch, model.slots))
    for rows, events in step_shapes:
        rehearsal.steps(rows, events)
    rehearsal.stream(1)
    rehearsal.stream(max((rows for rows, _ in step_shapes), default=1))
    return rehearsal.service_time


class _Rehearsal:
    """Runs batches of pseudo-random events, of which the last row is compared."""

    def __init__(self, model: Model, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self.service_time = ServiceTime()

    def windows(self, rows: int, events: int) -> None:
        """A batch of windows, whose last is answered as it is alone."""
        bins = self._model.grid.window_bins
        batch = self._random(rows, events, bins)
        golden = batch.take(np.array([rows - 1]))
        alone = self._answer(self._model.launch_windows(golden), 1)
        together = self._timed(Kind.WINDOW, rows, events, lambda: self._model.launch_windows(batch))
        _compare(together[-1], alone[0], f"a window in a batch of {rows}", "alone")

    def steps(self, rows: int, events: int) -> None:
        """A batch of steps."""
        slots = np.arange(rows)
        batch = self._random(rows, events, self._model.grid.bins_per_step)
        self._model.reset(slots, np.zeros(rows, np.int64))
        self._timed(Kind.STEP, rows, events, lambda: self._model.launch_steps(slots, batch))

    def stream(self, rows: int) -> None:
        """Streams of a window's steps, side by side; the last ends with the window's answer."""
        grid = self._model.grid
        windows = self._random(rows, 2 * grid.window_bins, grid.window_bins).split()
        slots = np.arange(rows)
        # Not from 0: a stream's answers do not depend on when it begins.
        self._model.reset(slots, np.full(rows, 1000))
        for first in range(0, grid.window_bins, grid.bins_per_step):
            step = [
                window.between(first, first + grid.bins_per_step).shifted(-first)
                for window in windows
            ]
            pending = self._model.launch_steps(slots, RaggedEvents.of(step))
            streamed = self._answer(pending, rows)
        decoded = self._answer(self._model.launch_windows(RaggedEvents.of(windows[-1:])), 1)
        _compare(streamed[-1], decoded[0], f"a stream among {rows}", "as one window")

    def _random(self, rows: int, events: int, bins: int) -> RaggedEvents:
        """Rows of so many events, spread evenly over the bins."""
        random = np.random.default_rng(events)
        n_units = len(self._model.unit_ids)
        time_bin = np.arange(events) * bins // max(events, 1)
        return RaggedEvents.of(
            [
                Events(
                    unit=random.integers(0, n_units, events),
                    time_bin=time_bin,
                    value=random.integers(1, 3, events),
                )
                for _ in range(rows)
            ]
        )

    def _timed(self, kind: Kind, rows: int, events: int, launch: Callable[[], Pending]) -> Velocity:
        for _ in range(2):
            start = self._clock()
            velocity = self._answer(launch(), rows)
            end = self._clock()
        self.service_time.record(kind, rows, events, end - start, end)
        return velocity

    def _answer(self, pending: Pending, rows: int) -> Velocity:
        velocity = pending.wait()
        check_velocity(velocity, rows)
        if not np.isfinite(velocity).all():
            raise ModelError(f"golden check: a batch of {rows} gave velocities that are not finite")
        return velocity


def _compare(given: Velocity, golden: Velocity, what: str, otherwise: str) -> None:
    if not np.allclose(
        given, golden, rtol=_TOLERANCE, atol=_TOLERANCE * (1 + np.abs(golden).max())
    ):
        raise ModelError(
            f"golden check: {what} is answered {given.tolist()}, {otherwise} {golden.tolist()}"
        )
