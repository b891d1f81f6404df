"""Windows: both protocols, the edges of trials, gaps, and every label on its own bin."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid
from training.samples.windows import (
    EventWindowConfig,
    WindowConfig,
    Windows,
    event_windows,
    sliding_windows,
    whole_bins,
)

# Two trials of 200 and 170 bins of 5 ms, with a gap of 170 between them.
START, STOP = np.array([40, 410]), np.array([240, 580])


def _code(bins: IntArray) -> IntArray:
    """What a bin's velocity is, and how often unit 0 fires in it: different for near bins."""
    return bins % 89 + 1


def _session(
    start: IntArray = START,
    stop: IntArray = STOP,
    labels: IntArray | None = None,
    onset: IntArray | None = None,
) -> Session:
    """A session whose velocity is written in the spikes of the very bin, in trials and in gaps."""
    fired = np.arange(int(stop.max()) + 60)
    if labels is None:
        labels = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
    velocity = np.stack([_code(labels), -_code(labels)], 1).astype(np.float32)
    return Session(
        session_id="coded",
        subject="nobody",
        unit_ids=("code", "silent"),
        grid=TimeGrid(),
        events=Events(unit=np.zeros_like(fired), time_bin=fired, value=_code(fired)),
        behavior=Behavior(time_bin=labels, velocity=velocity, unit="mm/s"),
        trials=Trials(
            start_bin=start,
            stop_bin=stop,
            event_bins={"move_onset": start + 60 if onset is None else onset},
        ),
    )


def _coded(windows: Windows, shift: int = 0) -> list[bool]:
    """Whether each label is what the spikes say `shift` bins after its place in the window."""
    found = []
    for i in range(len(windows)):
        events = windows.events(i)
        value = events.value[events.time_bin == windows.label_bin + shift]
        found.append([float(value.sum()), -float(value.sum())] == windows.velocity[i].tolist())
    return found


def test_sliding_windows_of_the_reference() -> None:
    windows = sliding_windows(_session())
    # 600 ms of 5 ms bins at a stride of 50 ms, labelled at the last bin; none across the gap.
    assert windows.n_bins == 120
    assert windows.label_bin == 119
    assert windows.first_bin.tolist() == [*range(40, 121, 10), *range(410, 461, 10)]
    assert windows.trial.tolist() == [0] * 9 + [1] * 6
    assert windows.left_out == 0
    assert windows.velocity[:, 0].tolist() == _code(windows.first_bin + 119).tolist()


def test_event_windows_of_the_reference() -> None:
    windows = event_windows(_session())
    # From 100 ms before to 500 ms after the onset of movement, labelled at the onset.
    assert windows.n_bins == 120
    assert windows.label_bin == 20
    assert windows.first_bin.tolist() == [80, 450]
    assert windows.trial.tolist() == [0, 1]
    assert windows.velocity[:, 0].tolist() == _code(np.array([100, 470])).tolist()
    events = windows.events(1)
    assert (events.time_bin.min(), events.time_bin.max()) == (0, 119)


@pytest.mark.parametrize("kind", ["sliding", "sliding across", "event"])
def test_no_label_drifts(kind: str) -> None:
    session = _session()
    windows = {
        "sliding": lambda: sliding_windows(session, WindowConfig(length_s=0.1, stride_s=0.015)),
        "sliding across": lambda: sliding_windows(session, WindowConfig(cross_trials=True)),
        "event": lambda: event_windows(session),
    }[kind]()
    assert len(windows)
    assert all(_coded(windows))
    # A shift of one bin, either way, would show in every window.
    assert not any(_coded(windows, -1))
    if windows.label_bin + 1 < windows.n_bins:
        assert not any(_coded(windows, 1))


def test_a_gap_that_is_cut_out_by_number_would_show() -> None:
    """The same samples, laid end to end: what a reader by sample number would make of the file."""
    session = _session()
    packed = replace(session.behavior, time_bin=40 + np.arange(len(session.behavior.time_bin)))
    windows = sliding_windows(
        replace(session, behavior=packed), WindowConfig(length_s=0.1, cross_trials=True)
    )
    before_the_gap = windows.first_bin + windows.label_bin < 240
    assert _coded(windows) == before_the_gap.tolist()
    assert not before_the_gap.all()


def test_windows_across_trials_keep_their_stride_over_the_gap() -> None:
    session = _session()
    windows = sliding_windows(session, WindowConfig(cross_trials=True))
    first = np.arange(0, 580 - 120 + 1, 10)
    last = first + 119
    labelled = ((last >= 40) & (last < 240)) | (last >= 410)
    assert windows.first_bin.tolist() == first[labelled].tolist()
    assert windows.left_out == (~labelled).sum()
    assert set(windows.trial.tolist()) == {0, 1}
    # The second trial's first windows begin in the gap, where no unit is masked here.
    assert windows.first_bin[windows.trial == 1].min() < 410
    only = sliding_windows(session, WindowConfig(cross_trials=True), trials=[1])
    assert only.first_bin.tolist() == windows.first_bin[windows.trial == 1].tolist()


def test_labels_between_trials_count_only_where_nobody_asks_for_trials() -> None:
    session = _session(labels=np.arange(0, 580))
    windows = sliding_windows(session, WindowConfig(cross_trials=True))
    assert -1 in windows.trial.tolist()
    assert windows.left_out == 0
    inside = sliding_windows(session, WindowConfig(cross_trials=True), trials=range(2))
    assert -1 not in inside.trial.tolist()


def test_a_window_needs_room_a_label_and_the_event() -> None:
    onset = np.array([100, -1, 420, 560 + 99, 800])
    start, stop = np.array([40, 250, 410, 560, 700]), np.array([240, 400, 560, 680, 1000])
    labels = np.setdiff1d(np.arange(40, 1000), [800])
    session = _session(start, stop, labels, onset)
    windows = event_windows(session)
    # No event; 100 ms before it lies in another trial; 500 ms after it do; no label.
    assert windows.trial.tolist() == [0]
    assert windows.left_out == 4
    across = event_windows(session, EventWindowConfig(cross_trials=True))
    assert across.trial.tolist() == [0, 2, 3]
    assert across.left_out == 2
    early = event_windows(
        _session(labels=np.arange(580), onset=np.array([10, 470])),
        EventWindowConfig(cross_trials=True),
    )
    # 100 ms before the first event lies before the session.
    assert early.trial.tolist() == [1]
    assert early.left_out == 1


def test_a_window_may_fill_its_trial_to_the_bin() -> None:
    exact = _session(np.array([0]), np.array([120]), onset=np.array([20]))
    assert sliding_windows(exact).first_bin.tolist() == [0]
    assert event_windows(exact).first_bin.tolist() == [0]
    short = _session(np.array([0]), np.array([119]), onset=np.array([20]))
    assert len(sliding_windows(short)) == 0
    assert len(event_windows(short)) == 0
    assert event_windows(short).left_out == 1
    assert len(event_windows(_session(np.array([1]), np.array([121]), onset=np.array([20])))) == 0


def test_a_trial_within_a_trial_owns_its_bins_and_no_more() -> None:
    session = _session(np.array([0, 50]), np.array([200, 60]), np.arange(200))
    windows = sliding_windows(
        session, WindowConfig(length_s=0.005, stride_s=0.005, cross_trials=True)
    )
    assert windows.trial.tolist() == [0] * 50 + [1] * 10 + [0] * 140


def test_windows_follow_the_trials_asked_for() -> None:
    session = _session()
    assert set(sliding_windows(session, trials=[1]).trial.tolist()) == {1}
    assert event_windows(session, trials=[1, 0]).trial.tolist() == [1, 0]
    assert len(sliding_windows(session, trials=[])) == 0


def test_the_spikes_of_many_windows_are_those_of_each() -> None:
    windows = sliding_windows(_session(), WindowConfig(length_s=0.05, stride_s=0.02))
    rows = np.array([5, 0, 5, 17])
    row, events = windows.gather(rows)
    for place, i in enumerate(rows.tolist()):
        alone = windows.events(i)
        for name, column in vars(alone).items():
            assert np.array_equal(vars(events)[name][row == place], column)


def test_a_silent_session_has_windows_without_spikes() -> None:
    windows = sliding_windows(replace(_session(), events=Events.empty()))
    assert len(windows) == 15
    row, events = windows.gather(np.arange(15))
    assert len(row) == len(events) == 0


@pytest.mark.parametrize(
    ("seconds", "least", "message"),
    [
        (0.0025, None, "length_s is 0.0025 s, expected a whole number of bins of 0.005 s$"),
        (0.0, 1, "expected a whole number of bins of 0.005 s, at least 1$"),
        (-0.1, 0, "at least 0$"),
        (float("nan"), None, "length_s is nan s"),
        (float("inf"), 1, "length_s is inf s"),
    ],
)
def test_times_are_whole_bins(seconds: float, least: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        whole_bins(_session(), "length_s", seconds, least=least)


def test_what_cannot_be_cut_is_refused() -> None:
    session = _session()
    blind = replace(session, behavior=Behavior.empty("mm/s"))
    for cut in (sliding_windows, event_windows):
        with pytest.raises(InputError, match="has no behaviour"):
            cut(blind)
    with pytest.raises(InputError, match="trials have no 'go_cue', expected one of: move_onset"):
        event_windows(session, EventWindowConfig(event="go_cue"))
    with pytest.raises(InputError, match="stride_s is 0"):
        sliding_windows(session, WindowConfig(stride_s=0.0))
    with pytest.raises(InputError, match="before_s is 0"):
        event_windows(session, EventWindowConfig(before_s=0.001))


@st.composite
def _sessions(draw: st.DrawFn) -> Session:
    """Trials of any length, some overlapping, with labels missing anywhere."""
    n = draw(st.integers(1, 4))
    start = np.array(draw(st.lists(st.integers(0, 60), min_size=n, max_size=n)))
    length = np.array(draw(st.lists(st.integers(1, 30), min_size=n, max_size=n)))
    stop = start + length
    drawn = draw(st.sets(st.integers(0, 89), min_size=1))
    onset = np.array(draw(st.lists(st.integers(-1, 89), min_size=n, max_size=n)))
    return _session(start, stop, np.array(sorted(drawn)), onset)


@settings(max_examples=150, deadline=None)
@given(_sessions(), st.integers(1, 20), st.integers(1, 9), st.booleans())
def test_sliding_windows_are_those_of_a_plain_loop(
    session: Session, length: int, stride: int, cross: bool
) -> None:
    config = WindowConfig(length_s=length * 0.005, stride_s=stride * 0.005, cross_trials=cross)
    windows = sliding_windows(session, config)
    labels = dict(zip(session.behavior.time_bin.tolist(), session.behavior.velocity, strict=True))
    spans = list(zip(session.trials.start_bin.tolist(), session.trials.stop_bin, strict=True))
    expected, left_out = [], 0
    candidates: list[tuple[int, int | None]]
    if cross:
        end = max(max(labels) + 1, *(int(stop) for _, stop in spans))
        candidates = [(first, None) for first in range(0, end - length + 1, stride)]
    else:
        candidates = [
            (first, trial)
            for trial, (start, stop) in enumerate(spans)
            for first in range(start, int(stop) - length + 1, stride)
        ]
    for first, trial in candidates:
        last = first + length - 1
        if last not in labels:
            left_out += 1
            continue
        if trial is None:
            inside = [(a, i) for i, (a, b) in enumerate(spans) if a <= last < b]
            trial = max(inside)[1] if inside else -1
        expected.append((first, trial, labels[last].tolist()))
    assert windows.left_out == left_out
    found = zip(
        windows.first_bin.tolist(), windows.trial.tolist(), windows.velocity.tolist(), strict=True
    )
    assert list(found) == expected


@settings(max_examples=150, deadline=None)
@given(_sessions(), st.integers(0, 12), st.integers(1, 12), st.booleans())
def test_event_windows_are_those_of_a_plain_loop(
    session: Session, before: int, after: int, cross: bool
) -> None:
    config = EventWindowConfig(before_s=before * 0.005, after_s=after * 0.005, cross_trials=cross)
    windows = event_windows(session, config)
    labels = dict(zip(session.behavior.time_bin.tolist(), session.behavior.velocity, strict=True))
    expected = []
    for trial, event in enumerate(session.event_bin("move_onset").tolist()):
        first, stop = event - before, event + after
        start, end = session.trials.start_bin[trial], session.trials.stop_bin[trial]
        fits = first >= 0 if cross else start <= first and stop <= end
        if event >= 0 and fits and event in labels:
            expected.append((first, trial, labels[event].tolist()))
    found = zip(
        windows.first_bin.tolist(), windows.trial.tolist(), windows.velocity.tolist(), strict=True
    )
    assert list(found) == expected
    assert windows.left_out == len(session.trials) - len(expected)
