"""Small files laid out as those of the Neural Latents Benchmark, for tests.

The tables, series, units, ragged columns, gaps and spans of observation follow the published
summaries of DANDI 000138 (MC_Maze), 000129 (MC_RTT) and 000127 (Area2_Bump); the numbers are made
up. Every velocity is its own millisecond, so that any drift shows.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import SpatialSeries
from pynwb.file import Subject

Array = npt.NDArray[np.float64]

# Trials of the maze: between them nothing was recorded.
MAZE_TRIALS = np.array([[0.1, 0.9], [1.6, 2.5], [4.2, 5.0]])
# Spans in which the other two were recorded.
SEGMENTS = np.array([[0.0, 1.2], [2.0, 3.2]])


def velocity_at(seconds: Array) -> Array:
    """What every file holds as velocity (n, 2), in mm/s."""
    millisecond = np.round(seconds * 1e3)
    return np.stack([millisecond, -millisecond], 1)


def write_maze(path: Path, units: int = 6, heldout: int = 2) -> None:
    """A training file of MC_Maze: behaviour by timestamps, ragged targets and barriers."""
    file = _file("Jenkins", "small")
    _units(file, [1011 + 10 * i for i in range(units)], MAZE_TRIALS, heldout)
    _maze_trials(file)
    times = np.concatenate([np.arange(round(a * 1e3), round(b * 1e3)) for a, b in MAZE_TRIALS])
    times = times / 1e3
    behavior = file.create_processing_module("behavior", "Processed behavioral data")
    hand = _position("hand_pos", times, np.cumsum(velocity_at(times), 0) / 1e3)
    behavior.add(hand)
    for name, slower in (("cursor_pos", 2), ("eye_pos", 4)):
        # Linked to the hand's timestamps, not written again.
        behavior.add(_position(name, hand, np.cumsum(velocity_at(times), 0) / 1e3 / slower))
    behavior.add(
        TimeSeries(
            name="hand_vel", data=velocity_at(times), timestamps=hand, unit="m/s", conversion=1e-3
        )
    )
    _write(file, path)


def write_maze_test(path: Path, units: int = 4) -> None:
    """A test file of MC_Maze: spikes in trials, the onset of movement, and nothing else."""
    file = _file("Jenkins", "small")
    _units(file, [1011 + 10 * i for i in range(units)], MAZE_TRIALS, 0)
    file.add_trial_column("split", "the benchmark's")
    file.add_trial_column("move_onset_time", "s")
    for start, stop in MAZE_TRIALS:
        file.add_trial(start_time=start, stop_time=stop, split="test", move_onset_time=start + 0.45)
    _write(file, path)


def write_rtt(path: Path) -> None:
    """A training file of MC_RTT: a fixed rate with NaN in the gap, trials of 600 ms end to end."""
    file = _file("Indy", "20170202_02")
    _units(file, [101, 201, 202], SEGMENTS, 1)
    file.add_trial_column("split", "the benchmark's")
    for start in (0.0, 0.6, 2.0, 2.6):
        file.add_trial(start_time=start, stop_time=start + 0.6, split="train" if start else "val")
    # A trial that runs on into the gap, where nothing was recorded.
    file.add_trial(start_time=0.9, stop_time=1.5, split="none")
    behavior = file.create_processing_module("behavior", "Processed behavioral data")
    velocity = _with_gap(velocity_at(np.arange(3200) / 1e3))
    behavior.add(
        TimeSeries(name="finger_vel", data=velocity, rate=1e3, unit="m/s", conversion=1e-3)
    )
    behavior.add(_at_rate("finger_pos", _with_gap(np.zeros((3200, 3)))))
    behavior.add(_at_rate("cursor_pos", _with_gap(np.zeros((3200, 2)))))
    behavior.add(_at_rate("target_pos", _with_gap(np.zeros((3200, 2)))))
    _write(file, path)


def write_area2(path: Path) -> None:
    """A training file of Area2_Bump: cm, active and passive trials, and trials that failed."""
    file = _file("Han", "20171207")
    _units(file, [11, 12], SEGMENTS, 0)
    for name in ("split", "result", "ctr_hold_bump", "bump_time", "bump_dir", "cond_dir"):
        file.add_trial_column(name, name)
    for name in ("move_onset_time", "go_cue_time", "target_on_time"):
        file.add_trial_column(name, name)
    nan = float("nan")
    for start, split, result, bump, onset, cue in (
        (0.1, "train", "R", nan, 0.45, 0.3),
        (0.7, "train", "R", 0.8, 0.83, 1.0),
        (2.0, "none", "A", nan, nan, nan),
    ):
        file.add_trial(
            start_time=start,
            stop_time=start + 0.5,
            split=split,
            result=result,
            ctr_hold_bump=bump == bump,
            bump_time=bump,
            bump_dir=90.0 if bump == bump else nan,
            cond_dir=90.0,
            move_onset_time=onset,
            go_cue_time=cue,
            target_on_time=start + 0.1,
        )
    behavior = file.create_processing_module("behavior", "Processed behavioral data")
    velocity = _with_gap(velocity_at(np.arange(3200) / 1e3)) / 10
    behavior.add(TimeSeries(name="hand_vel", data=velocity, rate=1e3, unit="m/s", conversion=1e-2))
    behavior.add(_at_rate("hand_pos", _with_gap(np.zeros((3200, 2))), 1e-2))
    behavior.add(TimeSeries(name="force", data=np.zeros((3200, 6)), rate=1e3, unit="N"))
    _write(file, path)


def _file(subject: str, session_id: str) -> NWBFile:
    file = NWBFile(
        session_description="for tests",
        identifier="for tests",
        session_id=session_id,
        session_start_time=datetime(2009, 9, 28, tzinfo=UTC),
    )
    file.subject = Subject(subject_id=subject, species="Macaca mulatta", sex="M", age="P5Y/")
    return file


def _units(file: NWBFile, ids: list[int], observed: Array, heldout: int) -> None:
    """Units that fire once every 100 ms of the recording, and are observed in the spans."""
    device = file.create_device("array", description="array")
    group = file.create_electrode_group("array", description="a", location="M1", device=device)
    for _ in ids:
        file.add_electrode(location="M1", group=group)
    file.add_unit_column("heldout", "whether the unit is held out")
    for i, unit_id in enumerate(ids):
        file.add_unit(
            id=unit_id,
            spike_times=np.arange(0.0125 + i * 1e-3, 6.0, 0.1),
            obs_intervals=observed,
            electrodes=[i],
            electrode_group=group,
            heldout=i >= len(ids) - heldout,
        )


def _maze_trials(file: NWBFile) -> None:
    for name in ("split", "success", "trial_type", "trial_version", "maze_id", "num_targets"):
        file.add_trial_column(name, name)
    for name in ("num_barriers", "active_target", "rt", "delay"):
        file.add_trial_column(name, name)
    for name in ("target_on_time", "go_cue_time", "move_onset_time"):
        file.add_trial_column(name, name)
    file.add_trial_column("target_pos", "mm", index=True)
    file.add_trial_column("barrier_pos", "mm", index=True)
    for i, (start, stop) in enumerate(MAZE_TRIALS):
        targets = [[-75, 90], [110, 5], [0, -100]][: 1 + 2 * (i == 2)]
        file.add_trial(
            start_time=start,
            stop_time=stop,
            split=("train", "val", "none")[i],
            success=True,
            trial_type=3,
            trial_version=i,
            maze_id=70 + i,
            num_targets=len(targets),
            num_barriers=i,
            active_target=0,
            rt=150,
            delay=200,
            target_on_time=start + 0.1,
            go_cue_time=start + 0.3,
            move_onset_time=start + 0.45,
            target_pos=np.array(targets, np.int16),
            barrier_pos=np.ones((i, 4), np.int64),
        )


def _position(name: str, times: "Array | TimeSeries", millimetres: Array) -> SpatialSeries:
    return SpatialSeries(
        name=name,
        data=millimetres,
        timestamps=times,
        unit="m",
        conversion=1e-3,
        reference_frame="screen",
    )


def _at_rate(name: str, data: Array, conversion: float = 1e-3) -> SpatialSeries:
    return SpatialSeries(
        name=name, data=data, rate=1e3, unit="m", conversion=conversion, reference_frame="screen"
    )


def _with_gap(samples: Array) -> Array:
    """The samples at 1 kHz from 0 s on, NaN outside of SEGMENTS."""
    seconds = np.arange(len(samples)) / 1e3
    recorded = ((seconds[:, None] >= SEGMENTS[:, 0]) & (seconds[:, None] < SEGMENTS[:, 1])).any(1)
    samples[~recorded] = np.nan
    return samples


def _write(file: NWBFile, path: Path) -> None:
    with NWBHDF5IO(str(path), "w") as io:
        io.write(file)
