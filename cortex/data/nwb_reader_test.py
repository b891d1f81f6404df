"""NWB files: what is written comes back on the right bins, and faults are named."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb import validate

from cortex.data.nwb_reader import read_nwb
from cortex.data.nwb_writer import write_nwb
from cortex.data.recording import Recording
from cortex.errors import InputError
from cortex.time_grid import TimeGrid

GRID = TimeGrid()


def _recording() -> Recording:
    """Two trials with a gap; velocity is its own millisecond, so that any drift shows."""
    times = np.concatenate([np.arange(100, 400), np.arange(1700, 2100)]) * 1e-3
    millisecond = np.round(times * 1e3)
    return Recording(
        session_id="planted",
        subject="nobody",
        description="planted",
        unit_ids=(1011, 1012, 2021),
        spike_times=(
            np.array([0.0349, 0.035, 0.0399, 1.75]),
            np.array([]),
            np.array([0.2, 1.9, 2.6]),
        ),
        obs_intervals=np.array([[0.0, 2.5]]),
        sample_times=times,
        hand_pos=np.zeros((len(times), 2)),
        hand_vel=np.stack([millisecond, -millisecond], 1),
        trial_start=np.array([0.1, 1.7]),
        trial_stop=np.array([0.4, 2.1]),
        trial_columns={"move_onset_time": np.array([0.2, 1.8])},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_nwb(_recording(), tmp_path / "planted.nwb")
    return tmp_path / "planted.nwb"


def test_written_files_are_valid_nwb(file: Path) -> None:
    assert not validate(path=str(file))


def test_spikes_land_in_their_bins(file: Path) -> None:
    session = read_nwb(file, GRID)
    assert session.unit_ids == ("1011", "1012", "2021")
    events = zip(
        session.events.time_bin.tolist(),
        session.events.unit.tolist(),
        session.events.value.tolist(),
        strict=True,
    )
    # 0.035 s is the first moment of bin 7; 2.6 s lies outside of what was observed.
    assert list(events) == [(6, 0, 1), (7, 0, 2), (40, 2, 1), (350, 0, 1), (380, 2, 1)]


def test_no_label_drifts_over_the_gap(file: Path) -> None:
    session = read_nwb(file, GRID)
    behavior = session.behavior
    assert behavior.time_bin.tolist() == [*range(20, 80), *range(340, 420)]
    np.testing.assert_allclose(behavior.velocity[:, 0], behavior.time_bin * 5 + 2, atol=1e-3)
    np.testing.assert_allclose(behavior.velocity[:, 1], -behavior.velocity[:, 0])
    assert session.trials.start_bin.tolist() == [20, 340]
    assert session.trials.stop_bin.tolist() == [80, 420]


def test_times_before_zero_shift_every_bin_alike(tmp_path: Path) -> None:
    early = dataclasses.replace(
        _recording(),
        spike_times=(np.array([-0.012]), np.array([]), np.array([0.2])),
        obs_intervals=np.array([[-1.0, 2.5]]),
    )
    write_nwb(early, tmp_path / "early.nwb")
    session = read_nwb(tmp_path / "early.nwb", GRID)
    assert session.events.time_bin.tolist() == [0, 43]
    assert session.trials.start_bin.tolist() == [23, 343]
    assert session.behavior.time_bin[0] == 23


def _edit(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def test_held_out_units_are_left_out(file: Path) -> None:
    def hold_out(f: h5py.File) -> None:
        f["units/heldout"][0] = True

    _edit(hold_out)(file)
    session = read_nwb(file, GRID)
    assert session.unit_ids == ("1012", "2021")
    assert session.events.unit.tolist() == [1, 1]


def test_metres_become_millimetres(file: Path) -> None:
    before = read_nwb(file, GRID).behavior.velocity

    def to_metres(f: h5py.File) -> None:
        data = f["processing/behavior/hand_vel/data"]
        data[:] = data[:] / 1000
        data.attrs["unit"] = "m/s"

    _edit(to_metres)(file)
    after = read_nwb(file, GRID).behavior
    assert after.unit == "mm/s"
    np.testing.assert_allclose(after.velocity, before, rtol=1e-5)


def test_missing_velocity_between_trials_is_no_label(tmp_path: Path) -> None:
    recording = _recording()
    between = dataclasses.replace(
        recording,
        sample_times=np.insert(recording.sample_times, 300, 1.0),
        hand_pos=np.insert(recording.hand_pos, 300, 0.0, axis=0),
        hand_vel=np.insert(recording.hand_vel, 300, np.nan, axis=0),
    )
    write_nwb(between, tmp_path / "between.nwb")
    assert 200 not in read_nwb(tmp_path / "between.nwb", GRID).behavior.time_bin


def test_conversion_is_honoured(file: Path) -> None:
    before = read_nwb(file, GRID).behavior.velocity
    _edit(lambda f: _velocity(f)["data"].attrs.__setitem__("conversion", 0.5))(file)
    np.testing.assert_allclose(read_nwb(file, GRID).behavior.velocity, before / 2, rtol=1e-5)


def test_an_offset_is_in_the_unit_that_the_file_states(file: Path) -> None:
    before = read_nwb(file, GRID).behavior.velocity

    def offset(f: h5py.File) -> None:
        _velocity(f)["data"].attrs.update(conversion=1e-3, offset=0.5, unit="m/s")

    _edit(offset)(file)
    np.testing.assert_allclose(read_nwb(file, GRID).behavior.velocity, before + 500, rtol=1e-5)


def test_a_rate_serves_where_there_are_no_timestamps(file: Path) -> None:
    def to_rate(f: h5py.File) -> None:
        series = _velocity(f)
        del series["timestamps"]
        start = series.create_dataset("starting_time", data=0.1)
        start.attrs.update(rate=500.0, unit="seconds")

    _edit(to_rate)(file)
    behavior = read_nwb(file, GRID).behavior
    # 700 samples at 500 Hz from 0.1 s on, with no gap.
    assert behavior.time_bin.tolist() == [*range(20, 300)]


def test_spikes_count_in_any_interval_of_observation(tmp_path: Path) -> None:
    moments = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    watched = dataclasses.replace(
        _recording(),
        spike_times=(moments, np.array([]), np.array([])),
        obs_intervals=np.array([[0.55, 0.65], [0.2, 0.4], [0.25, 0.3]]),
    )
    write_nwb(watched, tmp_path / "watched.nwb")
    session = read_nwb(tmp_path / "watched.nwb", GRID)
    assert session.events.time_bin.tolist() == [40, 60, 80, 120]


def test_a_session_may_be_silent(tmp_path: Path) -> None:
    silent = dataclasses.replace(_recording(), spike_times=(np.array([]),) * 3)
    write_nwb(silent, tmp_path / "silent.nwb")
    session = read_nwb(tmp_path / "silent.nwb", GRID)
    assert len(session.events) == 0
    assert len(session.unit_ids) == 3


def test_a_test_file_has_spikes_and_no_behaviour(tmp_path: Path) -> None:
    write_nwb(_recording().without_answers(), tmp_path / "test.nwb")
    session = read_nwb(tmp_path / "test.nwb", GRID)
    assert len(session.events) > 0
    assert len(session.behavior.time_bin) == 0
    assert set(session.trials.split) == {"test"}
    with pytest.raises(InputError, match="has no behaviour"):
        session.require_behavior()


def test_held_out_units_are_read_on_demand(tmp_path: Path) -> None:
    write_nwb(
        dataclasses.replace(_recording(), heldout=(False, True, False)), tmp_path / "file.nwb"
    )
    held_in = read_nwb(tmp_path / "file.nwb", GRID)
    everything = read_nwb(tmp_path / "file.nwb", GRID, include_heldout=True)
    assert held_in.unit_ids == ("1011", "2021")
    assert everything.unit_ids == ("1011", "1012", "2021")


def test_events_of_trials_and_the_gap_between_them(tmp_path: Path) -> None:
    columns = {"move_onset_time": np.array([0.4, np.nan]), "target_on_time": np.array([0.2, 1.6])}
    write_nwb(dataclasses.replace(_recording(), trial_columns=columns), tmp_path / "file.nwb")
    session = read_nwb(tmp_path / "file.nwb", GRID)
    assert session.event_bin("move_onset").tolist() == [80, -1]
    assert session.event_bin("target_on").tolist() == [40, 320]
    with pytest.raises(InputError, match="no 'go_cue', expected one of"):
        session.event_bin("go_cue")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.nwb").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_nwb(_recording(), tmp_path / "folder.nwb")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.nwb"]
    with pytest.raises(InputError, match="no such directory"):
        write_nwb(_recording(), tmp_path / "none" / "x.nwb")


def _velocity(f: h5py.File) -> h5py.Group:
    return f["processing/behavior/hand_vel"]


def _nan_inside(f: h5py.File) -> None:
    f["processing/behavior/hand_vel/data"][310, 1] = np.nan


def _wrong_unit(f: h5py.File) -> None:
    f["processing/behavior/hand_vel/data"].attrs["unit"] = "furlong"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: p.write_text("not HDF5"), "not a readable NWB file"),
        (_edit(lambda f: f.__delitem__("units")), "/units has no spike_times"),
        (_edit(lambda f: f.__delitem__("intervals")), "/intervals/trials is missing"),
        (
            _edit(lambda f: f.__delitem__("processing/behavior/hand_vel")),
            "expected one of hand_vel",
        ),
        (_edit(_wrong_unit), "is in 'furlong', expected one of mm/s"),
        (_edit(lambda f: f["units/heldout"].__setitem__(slice(None), True)), "no held-in unit"),
        (_edit(lambda f: f["units/spike_times"].__setitem__(1, np.nan)), "unit 1011 is nan s"),
        (_edit(lambda f: f["intervals/trials/stop_time"].__setitem__(0, np.nan)), "stop_time is"),
        (_edit(lambda f: _velocity(f)["timestamps"].__setitem__(5, np.inf)), "timestamps is inf s"),
        (_edit(_nan_inside), "not a number at 1.710 s, inside trial 1"),
    ],
)
def test_faults_are_named(file: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(file)
    with pytest.raises(InputError, match=message) as caught:
        read_nwb(file, GRID)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
