"""Events: to and from counts, and validation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex.errors import InputError
from cortex.events import Events


def _events(unit: list[int], time_bin: list[int], value: list[int]) -> Events:
    columns = [np.array(c, np.int64) for c in (unit, time_bin, value)]
    return Events(unit=columns[0], time_bin=columns[1], value=columns[2])


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=9))
def test_counts_survive_the_round_trip(rows: list[list[int]]) -> None:
    counts = np.array(rows)
    events = Events.from_counts(counts, first_bin=7)
    assert np.array_equal(events.to_counts(len(rows), 4, first_bin=7), counts)
    assert (np.diff(events.time_bin) >= 0).all()


def test_between_is_half_open() -> None:
    events = _events([0, 1, 2], [3, 5, 7], [1, 1, 1])
    assert events.between(3, 7).unit.tolist() == [0, 1]
    assert events.shifted(-3).time_bin.tolist() == [0, 2, 4]


def test_validation_sorts_by_time() -> None:
    ordered = _events([0, 1], [5, 2], [1, 2]).validated(n_units=2, n_bins=6, where="test")
    assert ordered.unit.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (_events([0, 4], [0, 0], [1, 1]), "here: event 1 has unit 4, expected 0 to 3"),
        (_events([-1], [0], [1]), "here: event 0 has unit -1, expected 0 to 3"),
        (_events([0], [6], [1]), "here: event 0 has time_bin 6, expected 0 to 5"),
        (_events([0], [0], [0]), "here: event 0 has value 0, expected 1 to 32767"),
        (_events([0, 1], [0], [1]), "one length, not 2, 1 and 1"),
    ],
)
def test_bad_events_are_named(events: Events, message: str) -> None:
    with pytest.raises(InputError, match=message):
        events.validated(n_units=4, n_bins=6, where="here")
