"""Spikes to load an engine with: made once, and used in rotation."""

from collections.abc import Iterator
from itertools import cycle

import numpy as np

from cortex.errors import InputError
from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from cortex.time_grid import TimeGrid

# More than fit a batch many times over, and few enough to be made in a moment.
_WINDOWS = 512
_STEPS = 8192


class RandomWindows:
    """Windows of as many events each, spread at random over units and bins."""

    def __init__(self, grid: TimeGrid, *, n_units: int, events: int, seed: int = 0) -> None:
        """Makes the windows.

        Args:
            grid: the model's.
            n_units: size of its vocabulary.
            events: events of a window.
            seed: of the random numbers.

        Raises:
            InputError: a window has no room for so many events.
        """
        cells = grid.window_bins * n_units
        if not 0 <= events <= cells:
            raise InputError(f"events is {events}, expected 0 to {cells}, a window's bins x units")
        random = np.random.default_rng(seed)
        self._windows = cycle([_events(random, cells, n_units, events) for _ in range(_WINDOWS)])

    def __iter__(self) -> Iterator[Events]:
        """Windows without end."""
        return self._windows


class RandomSteps:
    """Steps of a random number of events each, as of units that fire by themselves."""

    def __init__(self, grid: TimeGrid, *, n_units: int, events: float, seed: int = 0) -> None:
        """Makes the steps.

        Args:
            grid: the model's.
            n_units: size of its vocabulary.
            events: events of a step on average.
            seed: of the random numbers.

        Raises:
            InputError: a step has no room for so many events.
        """
        cells = grid.bins_per_step * n_units
        if not 0 <= events <= cells:
            raise InputError(f"events is {events}, expected 0 to {cells}, a step's bins x units")
        random = np.random.default_rng(seed)
        counts = np.minimum(random.poisson(events, _STEPS), cells).tolist()
        self._steps = RaggedEvents.of([_events(random, cells, n_units, n) for n in counts])
        self._start = np.concatenate([[0], np.cumsum(self._steps.count_B)])
        self._next = 0

    def take(self, rows: int) -> RaggedEvents:
        """The next steps in rotation, at most 8192. Nothing is copied."""
        first = self._next if self._next + rows <= _STEPS else 0
        self._next = stop = first + rows
        part = slice(int(self._start[first]), int(self._start[stop]))
        return RaggedEvents(
            unit=self._steps.unit[part],
            time_bin=self._steps.time_bin[part],
            value=self._steps.value[part],
            count_B=self._steps.count_B[first:stop],
        )


def _events(random: np.random.Generator, cells: int, n_units: int, events: int) -> Events:
    cell = np.sort(random.choice(cells, events, replace=False))
    return Events(
        unit=cell % n_units,
        time_bin=cell // n_units,
        value=1 + (random.random(events) < 0.1).astype(np.int64),
    )
