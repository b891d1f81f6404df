from itertools import islice

import numpy as np
import pytest

from cortex.errors import InputError
from cortex.ragged_events import RaggedEvents
from cortex.time_grid import TimeGrid
from serving.load.random_events import RandomSteps, RandomWindows

GRID = TimeGrid(window_steps=8)


def _valid(events: RaggedEvents, n_bins: int) -> bool:
    """Whether the engine would take them as they are."""
    checked, wrong = events.validated(n_units=20, n_bins=n_bins, where=str)
    return checked is events and not wrong


def test_windows_hold_as_many_events_as_asked_for() -> None:
    windows = list(islice(RandomWindows(GRID, n_units=20, events=60), 10))
    assert {len(window) for window in windows} == {60}
    assert _valid(RaggedEvents.of(windows), GRID.window_bins)
    assert (windows[0].unit != windows[1].unit).any()


def test_steps_rotate_and_hold_as_many_events_as_asked_for_on_average() -> None:
    steps = RandomSteps(GRID, n_units=20, events=7)
    first, second = steps.take(5000), steps.take(3192)
    again = steps.take(5000)
    assert _valid(first, GRID.bins_per_step) and _valid(second, GRID.bins_per_step)
    assert len(second) == 3192
    np.testing.assert_array_equal(first.unit, again.unit)
    assert first.count_B.mean() == pytest.approx(7, rel=0.05)
    assert first.count_B.var() == pytest.approx(7, rel=0.1)


def test_more_events_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(InputError, match="events is 641, expected 0 to 640"):
        RandomWindows(GRID, n_units=20, events=641)
    with pytest.raises(InputError, match="events is 81, expected 0 to 80"):
        RandomSteps(GRID, n_units=20, events=81)
