"""Every layout of the Neural Latents Benchmark opens, with each label on its own bin."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb import validate

from cortex.data.benchmark_files_for_tests import (
    MAZE_TRIALS,
    velocity_at,
    write_area2,
    write_maze,
    write_maze_test,
    write_rtt,
)
from cortex.data.nwb_reader import read_nwb
from cortex.data.nwb_writer import write_nwb
from cortex.data.open_session import open_session
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.errors import InputError
from cortex.session import Session
from cortex.time_grid import TimeGrid

GRID = TimeGrid()


def _labels_are_their_own_bins(session: Session) -> None:
    """A bin of 5 ms holds milliseconds 5 b to 5 b + 4, whose mean is 5 b + 2."""
    bins = session.behavior.time_bin
    np.testing.assert_allclose(session.behavior.velocity[:, 0], bins * 5 + 2, atol=2e-3)
    np.testing.assert_allclose(session.behavior.velocity[:, 1], -(bins * 5 + 2), atol=2e-3)
    assert session.behavior.unit == "mm/s"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.nwb"


def test_the_layouts_are_valid_nwb(path: Path) -> None:
    for write in (write_maze, write_maze_test, write_rtt, write_area2):
        write(path)
        assert not validate(path=str(path))


def test_maze(path: Path) -> None:
    write_maze(path)
    session = read_nwb(path, GRID)
    _labels_are_their_own_bins(session)
    assert (session.session_id, session.subject) == ("small", "Jenkins")
    assert session.behavior.series == "hand_vel"
    bins = [range(round(a * 200), round(b * 200)) for a, b in MAZE_TRIALS]
    assert session.behavior.time_bin.tolist() == [b for trial in bins for b in trial]
    assert session.trials.start_bin.tolist() == [trial.start for trial in bins]
    assert session.trials.stop_bin.tolist() == [trial.stop for trial in bins]
    assert session.trials.split == ("train", "val", "none")
    assert session.trials.in_split("train", "val").tolist() == [0, 1]
    starts = session.trials.start_bin
    assert {name: bins.tolist() for name, bins in session.trials.event_bins.items()} == {
        "target_on": (starts + 20).tolist(),
        "go_cue": (starts + 60).tolist(),
        "move_onset": (starts + 90).tolist(),
    }
    # Units fire all the time; only what they did in trials was observed.
    assert session.unit_ids == ("1011", "1021", "1031", "1041")
    spikes = np.arange(0.0125, 6.0, 0.1)
    seen = [any(a <= t <= b for a, b in MAZE_TRIALS) for t in spikes]
    first = session.events.time_bin[session.events.unit == 0]
    assert first.tolist() == np.floor(spikes[seen] * 200).astype(int).tolist()
    everything = read_nwb(path, GRID, include_heldout=True)
    assert everything.unit_ids == ("1011", "1021", "1031", "1041", "1051", "1061")


def test_a_maze_test_file_has_the_units_of_the_training_file_and_no_labels(path: Path) -> None:
    write_maze(path)
    train = read_nwb(path, GRID)
    write_maze_test(path)
    test = read_nwb(path, GRID)
    assert test.unit_ids == train.unit_ids
    assert len(test.events) == len(train.events)
    assert len(test.behavior.time_bin) == 0
    assert set(test.trials.split) == {"test"}
    assert test.event_bin("move_onset").tolist() == train.event_bin("move_onset").tolist()
    with pytest.raises(InputError, match="has no behaviour"):
        test.require_behavior()


def test_our_own_test_file_is_laid_out_alike(tmp_path: Path) -> None:
    recording = simulate(SimulatorConfig(trials=2, units=4, heldout_units=1))
    write_nwb(recording.without_answers(), tmp_path / "ours.nwb")
    write_maze_test(tmp_path / "theirs.nwb")
    columns = []
    for name in ("ours.nwb", "theirs.nwb"):
        with h5py.File(tmp_path / name) as file:
            assert "behavior" not in file["processing"]
            assert not file["units/heldout"][:].any()
            columns.append((set(file["intervals/trials"]), set(file["units"])))
    assert columns[0] == columns[1]


@pytest.mark.parametrize(("series", "slower"), [("hand_pos", 1), ("cursor_pos", 2), ("eye_pos", 4)])
def test_the_velocity_of_a_position_is_decoded_on_demand(
    path: Path, series: str, slower: int
) -> None:
    write_maze(path)
    session = open_session(path, series=series)
    assert session.behavior.series == series
    whole = read_nwb(path, GRID).behavior
    assert session.behavior.time_bin.tolist() == whole.time_bin.tolist()
    # Within a millisecond, the error of a central difference of their sum; at the edges of trials
    # a bin has four samples. Across a gap it would be off by hundreds.
    np.testing.assert_allclose(session.behavior.velocity * slower, whole.velocity, atol=1.01)


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ("finger_vel", r"has cursor_pos, eye_pos, hand_pos, hand_vel, expected finger_vel"),
        ("", r"has cursor_pos, eye_pos, hand_pos, hand_vel, expected "),
    ],
)
def test_a_series_that_is_not_there_is_named(path: Path, series: str, message: str) -> None:
    write_maze(path)
    with pytest.raises(InputError, match=message):
        open_session(path, series=series)


def test_rtt(path: Path) -> None:
    write_rtt(path)
    session = read_nwb(path, GRID)
    _labels_are_their_own_bins(session)
    assert session.behavior.series == "finger_vel"
    assert session.behavior.time_bin.tolist() == [*range(240), *range(400, 640)]
    assert session.trials.start_bin.tolist() == [0, 120, 400, 520, 180]
    assert session.trials.stop_bin.tolist() == [120, 240, 520, 640, 300]
    assert dict(session.trials.event_bins) == {}
    assert session.unit_ids == ("101", "201")
    assert not ((session.events.time_bin > 240) & (session.events.time_bin < 400)).any()
    with pytest.raises(InputError, match=r"finger_pos has shape \(3200, 3\), expected \(samples"):
        read_nwb(path, GRID, series="finger_pos")
    with pytest.raises(InputError, match="no 'move_onset', expected one of: no event"):
        session.event_bin("move_onset")


def test_a_missing_velocity_while_units_were_observed_is_refused(path: Path) -> None:
    write_rtt(path)
    with h5py.File(path, "r+") as file:
        file["processing/behavior/finger_vel/data"][700] = np.nan
    with pytest.raises(InputError, match=r"finger_vel is not a number at 0\.700 s, inside trial 1"):
        read_nwb(path, GRID)


def test_area2(path: Path) -> None:
    write_area2(path)
    session = read_nwb(path, GRID)
    _labels_are_their_own_bins(session)
    assert session.behavior.time_bin.tolist() == [*range(240), *range(400, 640)]
    assert session.trials.split == ("train", "train", "none")
    assert session.event_bin("move_onset").tolist() == [90, 166, -1]
    assert session.event_bin("bump").tolist() == [-1, 160, -1]
    assert session.event_bin("go_cue").tolist() == [60, 200, -1]


def test_a_force_is_no_velocity(path: Path) -> None:
    write_area2(path)
    with pytest.raises(InputError, match="force is in 'N', expected one of mm/s, cm/s, m/s, mm"):
        read_nwb(path, GRID, series="force")


def test_positions_out_of_order_have_no_velocity(path: Path) -> None:
    write_maze(path)
    with h5py.File(path, "r+") as file:
        file["processing/behavior/hand_pos/timestamps"][5] = 0.1
    with pytest.raises(InputError, match=r"hand_pos/timestamps is 0\.1 s after 0\.104 s, expected"):
        read_nwb(path, GRID, series="hand_pos")


@pytest.mark.parametrize(("units", "heldout", "held_in"), [(182, 45, 137), (142, 35, 107)])
def test_a_simulated_session_of_the_benchmarks_size(
    path: Path, units: int, heldout: int, held_in: int
) -> None:
    recording = simulate(SimulatorConfig(trials=1, units=units, heldout_units=heldout))
    write_nwb(recording, path)
    session = read_nwb(path, GRID)
    kept = [i for i, out in enumerate(recording.heldout) if not out]
    assert len(session.unit_ids) == len(kept) == held_in
    assert session.unit_ids == tuple(str(recording.unit_ids[i]) for i in kept)
    spikes = np.bincount(session.events.unit, session.events.value, held_in)
    assert spikes.tolist() == [len(recording.spike_times[i]) for i in kept]
    assert len(read_nwb(path, GRID, include_heldout=True).unit_ids) == units
    write_nwb(recording.without_answers(), path)
    assert read_nwb(path, GRID, include_heldout=True).unit_ids == session.unit_ids


def test_the_planted_velocity_is_the_millisecond() -> None:
    assert velocity_at(np.array([0.1, 1.25])).tolist() == [[100.0, -100.0], [1250.0, -1250.0]]
