"""Alignment to an event: the benchmark's bins, its lag, gaps, and who is left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex.data.nwb_reader import read_nwb
from cortex.data.nwb_writer import write_nwb
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.errors import InputError
from cortex.events import Events
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid
from training.samples.alignment import Aligned, aligned

# Bins by which spikes lead the velocity that they are a copy of: 100 ms of 5 ms bins.
LAG = 20


def _session(bin_us: int = 5_000, gap: bool = True) -> Session:
    """Two trials around onsets at bins 100 and 400; a unit fires LAG bins ahead of the velocity."""
    rng = np.random.default_rng(0)
    code = rng.integers(1, 90, 600)
    time_bin = np.arange(40, 600)
    if gap:
        time_bin = time_bin[(time_bin < 240) | (time_bin >= 330)]
    return Session(
        session_id="led",
        subject="nobody",
        unit_ids=("silent", "leads"),
        grid=TimeGrid(bin_us=bin_us),
        events=Events(
            unit=np.ones(600 - LAG, np.int64),
            time_bin=np.arange(600 - LAG),
            value=code[LAG:],
        ),
        behavior=Behavior(
            time_bin=time_bin,
            velocity=np.stack([code, -2 * code], 1)[time_bin].astype(np.float32),
            unit="mm/s",
        ),
        trials=Trials(
            start_bin=np.array([40, 330]),
            stop_bin=np.array([240, 600]),
            event_bins={"move_onset": np.array([100, 400]), "go_cue": np.array([-1, 380])},
        ),
    )


def test_the_benchmarks_own_bins() -> None:
    found = aligned(_session())
    # From 250 ms before to 450 ms after the onset in bins of 5 ms, the velocity 100 ms later.
    assert found.trial.tolist() == [0, 1]
    assert found.spikes.shape == (2, 140, 2)
    assert found.velocity.shape == (2, 140, 2)
    np.testing.assert_allclose(found.time_s, np.arange(-50, 90) * 0.005, atol=1e-6)
    assert found.left_out == 0
    assert not found.spikes[:, :, 0].any()


@pytest.mark.parametrize(("lag_s", "holds"), [(0.1, True), (0.095, False), (0.105, False)])
def test_no_label_drifts(lag_s: float, holds: bool) -> None:
    """The planted relation holds at the planted lag, over the gap too, and at no other."""
    found = aligned(_session(), lag_s=lag_s)
    leads = found.spikes[:, :, 1]
    for trial in range(2):
        assert np.array_equal(found.velocity[trial, :, 0], leads[trial]) == holds
        assert np.array_equal(found.velocity[trial, :, 1], -2 * leads[trial]) == holds


def test_the_velocity_may_come_before_the_spikes() -> None:
    found = aligned(_session(), before_s=0.1, after_s=0.1, lag_s=-0.02)
    later = aligned(_session(), before_s=0.12, after_s=0.08, lag_s=0.0)
    assert np.array_equal(found.velocity, later.velocity)
    assert np.array_equal(found.spikes[:, :36], later.spikes[:, 4:])


def test_a_fine_grid_is_summed_and_averaged() -> None:
    session = _session(bin_us=1_000)
    found = aligned(session, before_s=0.025, after_s=0.05, lag_s=0.02)
    assert found.spikes.shape == (2, 15, 2)
    fine = aligned(session, before_s=0.025, after_s=0.05, lag_s=0.02, bin_s=0.001)
    assert np.array_equal(found.spikes, fine.spikes.reshape(2, 15, 5, 2).sum(2))
    np.testing.assert_allclose(
        found.velocity, fine.velocity.reshape(2, 15, 5, 2).mean(2), rtol=1e-6
    )
    np.testing.assert_allclose(found.velocity[:, :, 0], found.spikes[:, :, 1] / 5, rtol=1e-6)


def test_trials_without_the_event_a_label_or_room_are_left_out() -> None:
    session = _session()
    assert aligned(session, event="go_cue").trial.tolist() == [1]
    assert aligned(session, event="go_cue").left_out == 1
    # From the first onset, 700 ms on and 100 ms of lag reach into the gap.
    assert aligned(session, after_s=0.7).trial.tolist() == [1]
    assert aligned(_session(gap=False), after_s=0.7).trial.tolist() == [0, 1]
    # 505 ms before the first onset lies before the session; the labels would begin at bin 39.
    assert aligned(session, before_s=0.505, after_s=0.1, lag_s=0.3).trial.tolist() == [1]
    late = aligned(session, before_s=0.505, after_s=0.1, lag_s=0.3)
    assert late.left_out == 1
    assert aligned(session, trials=[1]).trial.tolist() == [1]
    assert aligned(session, trials=[1]).left_out == 0
    assert len(aligned(session, trials=[]).trial) == 0


def test_a_sample_that_is_missing_within_a_bin_leaves_it_its_label() -> None:
    session = _session(bin_us=1_000)
    behavior = session.behavior
    keep = behavior.time_bin != 102
    holed = dataclasses.replace(
        session,
        behavior=dataclasses.replace(
            behavior, time_bin=behavior.time_bin[keep], velocity=behavior.velocity[keep]
        ),
    )
    found = aligned(holed, before_s=0.0, after_s=0.005, lag_s=0.0)
    assert found.left_out == 0
    four = behavior.velocity[np.isin(behavior.time_bin, [100, 101, 103, 104])]
    np.testing.assert_allclose(found.velocity[0, 0], four.mean(0), rtol=1e-6)


def test_what_cannot_be_aligned_is_refused() -> None:
    session = _session()
    with pytest.raises(InputError, match="has no behaviour"):
        aligned(dataclasses.replace(session, behavior=Behavior.empty("mm/s")))
    with pytest.raises(InputError, match="no 'target_on', expected one of: move_onset, go_cue"):
        aligned(session, event="target_on")
    with pytest.raises(InputError, match=r"lag_s is 0\.0975 s, expected a whole number of bins of"):
        aligned(session, lag_s=0.0975)
    with pytest.raises(InputError, match="after the event, expected a whole number of bins of 0"):
        aligned(session, bin_s=0.02, after_s=0.455)
    with pytest.raises(InputError, match=r"-0\.45 s before to 0\.45 s after .* at least 1$"):
        aligned(session, before_s=-0.45)


def test_a_unit_that_was_not_observed_is_silent(tmp_path: Path) -> None:
    """The first unit is lost 100 ms after the first trial's onset of movement."""
    recording = simulate(SimulatorConfig(trials=3, units=5, silent_share=0.0, seed=4))
    onset = recording.trial_columns["move_onset_time"][0]
    every_ms = np.arange(0.0005, float(recording.trial_stop[-1]), 1e-3)
    full = dataclasses.replace(recording, spike_times=(every_ms,) * 5)
    seen = np.array([[0.0, onset + 0.1], [float(recording.trial_start[1]), 1e3]])
    write_nwb(dataclasses.replace(full, obs_intervals=seen), tmp_path / "lost.nwb")
    found = aligned(read_nwb(tmp_path / "lost.nwb", TimeGrid(bin_us=1_000)))
    lost = found.time_s >= 0.1
    assert (found.spikes[0, ~lost] == 5).all()
    assert (found.spikes[0, lost] == 0).all()
    assert (found.spikes[1:] == 5).all()


def _plain(session: Session, before: int, after: int, width: int, lag: int) -> Aligned:
    """Alignment as one would write it on paper."""
    labels = dict(zip(session.behavior.time_bin.tolist(), session.behavior.velocity, strict=True))
    counts = session.events.to_counts(2000, 2)
    kept, spikes, velocity = [], [], []
    for trial, event in enumerate(session.event_bin("move_onset").tolist()):
        starts = range(event - before, event + after, width)
        means = []
        for start in starts:
            there = [labels[b + lag] for b in range(start, start + width) if b + lag in labels]
            if there:
                means.append(np.mean(there, 0))
        if event >= 0 and event - before >= 0 and len(means) == len(starts):
            kept.append(trial)
            spikes.append([counts[start : start + width].sum(0) for start in starts])
            velocity.append(means)
    shape = (len(kept), (before + after) // width, 2)
    return Aligned(
        trial=np.array(kept, np.int64),
        spikes=np.array(spikes, np.int64).reshape(shape),
        velocity=np.array(velocity, np.float32).reshape(shape),
        time_s=np.empty(0, np.float32),
        left_out=len(session.trials) - len(kept),
    )


@settings(max_examples=100, deadline=None)
@given(
    onset=st.lists(st.integers(-1, 120), min_size=1, max_size=4),
    labels=st.sets(st.integers(0, 119), min_size=1),
    spikes=st.lists(st.tuples(st.integers(0, 119), st.integers(0, 1)), max_size=40),
    before=st.integers(-3, 4),
    bins=st.integers(1, 5),
    width=st.integers(1, 4),
    lag=st.integers(-6, 6),
)
def test_alignment_is_that_of_a_plain_loop(
    onset: list[int],
    labels: set[int],
    spikes: list[tuple[int, int]],
    before: int,
    bins: int,
    width: int,
    lag: int,
) -> None:
    counts = np.zeros((120, 2), np.int64)
    for spike in spikes:
        counts[spike] += 1
    time_bin = np.array(sorted(labels))
    session = dataclasses.replace(
        _session(),
        events=Events.from_counts(counts),
        behavior=Behavior(
            time_bin=time_bin,
            velocity=np.stack([time_bin, time_bin**2], 1).astype(np.float32),
            unit="mm/s",
        ),
        trials=Trials(
            start_bin=np.zeros(len(onset), np.int64),
            stop_bin=np.full(len(onset), 120),
            event_bins={"move_onset": np.array(onset)},
        ),
    )
    found = aligned(
        session,
        before_s=before * 0.005,
        after_s=(bins * width - before) * 0.005,
        bin_s=width * 0.005,
        lag_s=lag * 0.005,
    )
    expected = _plain(session, before, bins * width - before, width, lag)
    assert found.trial.tolist() == expected.trial.tolist()
    assert found.left_out == expected.left_out
    assert np.array_equal(found.spikes, expected.spikes)
    np.testing.assert_allclose(found.velocity, expected.velocity, rtol=1e-5)
