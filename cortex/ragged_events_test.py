"""Ragged events are the samples they were made of, and are judged as each alone is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex.errors import InputError
from cortex.events import Events
from cortex.ragged_events import RaggedEvents

_EXTREME = st.sampled_from([-(1 << 63), (1 << 63) - 1])
_EVENT = st.tuples(
    st.integers(-1, 4) | _EXTREME, st.integers(-1, 6) | _EXTREME, st.integers(0, 3) | _EXTREME
)
_SAMPLES = st.lists(st.lists(_EVENT, max_size=5), max_size=6)


def _events(triples: list[tuple[int, int, int]]) -> Events:
    unit, time_bin, value = np.array(triples, np.int64).reshape(-1, 3).T
    return Events(unit=unit, time_bin=time_bin, value=value)


def _triples(events: Events) -> list[tuple[int, int, int]]:
    return list(
        zip(events.unit.tolist(), events.time_bin.tolist(), events.value.tolist(), strict=True)
    )


@given(_SAMPLES, st.data())
def test_samples_survive_being_put_together(
    samples: list[list[tuple[int, int, int]]], data: st.DataObject
) -> None:
    ragged = RaggedEvents.of([_events(sample) for sample in samples])
    assert [_triples(each) for each in ragged.split()] == samples
    assert ragged.widest == max(map(len, samples), default=0)
    rows = data.draw(st.lists(st.integers(0, len(samples) - 1))) if samples else []
    taken = ragged.take(np.array(rows, np.int64))
    assert [_triples(each) for each in taken.split()] == [samples[row] for row in rows]
    twice = RaggedEvents.concatenate([taken, ragged])
    assert [_triples(each) for each in twice.split()] == [samples[row] for row in rows] + samples


@given(_SAMPLES)
def test_each_sample_is_judged_as_it_is_alone(samples: list[list[tuple[int, int, int]]]) -> None:
    expected, messages = [], {}
    for row, sample in enumerate(samples):
        try:
            alone = _events(sample).validated(n_units=4, n_bins=6, where=f"row {row}")
        except InputError as error:
            messages[row], alone = str(error), Events.empty()
        expected.append(_triples(alone))
    ragged = RaggedEvents.of([_events(sample) for sample in samples])
    valid, errors = ragged.validated(n_units=4, n_bins=6, where=lambda row: f"row {row}")
    assert [_triples(each) for each in valid.split()] == expected
    assert {row: str(error) for row, error in errors.items()} == messages


@pytest.mark.parametrize("counts", [[1, 2], [2, 3], [5, -1]])
def test_counts_that_do_not_fit_the_columns_are_refused(counts: list[int]) -> None:
    column = np.zeros(4, np.int64)
    ragged = RaggedEvents(unit=column, time_bin=column, value=column, count_B=np.array(counts))
    with pytest.raises(InputError, match="steps: unit, time_bin and value have 4, 4 and 4"):
        ragged.check_lengths("steps")
