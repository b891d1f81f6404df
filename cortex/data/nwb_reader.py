"""Reads an NWB recording in the schema of MC_Maze (DANDI 000128)."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pynwb import NWBHDF5IO, NWBFile

from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid

# To mm/s, by the unit that the file states.
VELOCITY_SCALE = {"mm/s": 1.0, "cm/s": 10.0, "m/s": 1000.0}

# From here on float64 no longer holds every whole microsecond, and bins would not be exact.
LATEST_S = 2**53 / 1e6


def read_nwb(path: Path, grid: TimeGrid) -> Session:
    """Puts a recording on a time grid.

    Spikes count where their unit was observed; units that the benchmark holds out are left out.
    Behaviour goes by its timestamps: a bin's label is the mean of the samples in it, and a bin
    without samples has none.

    Args:
        path: the file.
        grid: the time grid; bin 0 starts at 0 s, or at the first spike or sample before that.

    Raises:
        InputError: the file is missing, is not NWB, lacks a part, or has a time that is not a
            number, or such a velocity inside a trial.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
            return _session(io.read(), path, grid)
    except InputError:
        raise
    except Exception as error:
        # pynwb and h5py raise almost anything on a file that is not what they expect.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable NWB file: {reason}") from error


def _session(file: NWBFile, path: Path, grid: TimeGrid) -> Session:
    if file.units is None or "spike_times" not in file.units.colnames:
        raise InputError(f"{path}: /units has no spike_times, expected spikes of sorted units")
    if file.trials is None:
        raise InputError(f"{path}: /intervals/trials is missing, expected a table of trials")
    series = _hand_velocity(file, path)
    sample_bin, velocity = _samples(series, path, grid)
    start_bin, stop_bin = (
        _bins(_seconds(file.trials[name][:], f"/intervals/trials/{name}", path), grid)
        for name in ("start_time", "stop_time")
    )
    unit_ids, spike_bins = _spikes(file, path, grid)
    firsts = [b.min() for b in (sample_bin, start_bin, *spike_bins) if len(b)]
    origin = min(0, *firsts)
    behavior = _behavior(sample_bin - origin, velocity)
    session = Session(
        session_id=file.session_id or path.stem,
        subject=file.subject.subject_id if file.subject else "unknown",
        unit_ids=unit_ids,
        grid=grid,
        events=_events([b - origin for b in spike_bins]),
        behavior=behavior,
        trials=Trials(start_bin=start_bin - origin, stop_bin=stop_bin - origin),
    )
    if not len(behavior.time_bin):
        raise InputError(f"{path}: /processing/behavior/hand_vel holds no number")
    return session


def _hand_velocity(file: NWBFile, path: Path) -> Any:
    where = f"{path}: /processing/behavior/hand_vel"
    try:
        series = file.processing["behavior"].data_interfaces["hand_vel"]
    except KeyError:
        raise InputError(f"{where} is missing, expected hand velocity") from None
    if series.unit not in VELOCITY_SCALE:
        raise InputError(
            f"{where} is in {series.unit!r}, expected one of {', '.join(VELOCITY_SCALE)}"
        )
    if series.data.ndim != 2 or series.data.shape[1] != 2:
        raise InputError(f"{where} has shape {series.data.shape}, expected (samples, 2)")
    return series


def _samples(series: Any, path: Path, grid: TimeGrid) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Bins (T,) and velocities (T, 2) in mm/s of the samples that are numbers."""
    times = _seconds(series.get_timestamps(), "/processing/behavior/hand_vel/timestamps", path)
    if len(times) != series.data.shape[0]:
        raise InputError(
            f"{path}: /processing/behavior/hand_vel has {series.data.shape[0]} samples "
            f"and {len(times)} timestamps"
        )
    scale = VELOCITY_SCALE[series.unit] * series.conversion
    velocity = np.asarray(series.data[:], np.float64) * scale + (series.offset or 0.0)
    missing = ~np.isfinite(velocity).all(axis=1)
    _refuse_missing_inside_trials(times[missing], series.get_ancestor("NWBFile").trials, path)
    return _bins(times[~missing], grid), velocity[~missing]


def _refuse_missing_inside_trials(times: npt.NDArray[np.float64], trials: Any, path: Path) -> None:
    """Between trials a velocity may be missing; inside one it may not."""
    start, stop = (np.asarray(trials[name][:]) for name in ("start_time", "stop_time"))
    order = np.argsort(start)
    before = np.searchsorted(start[order], times, side="right") - 1
    inside = np.flatnonzero((before >= 0) & (times < stop[order][before]))
    if len(inside):
        raise InputError(
            f"{path}: /processing/behavior/hand_vel is not a number at {times[inside[0]]:.3f} s, "
            f"inside trial {order[before[inside[0]]]}; expected numbers inside trials"
        )


def _behavior(sample_bin: IntArray, velocity: npt.NDArray[np.float64]) -> Behavior:
    """Means of the samples in each bin that has any."""
    time_bin, which, counts = np.unique(sample_bin, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(which, column) for column in velocity.T], 1) / counts[:, None]
    return Behavior(time_bin=time_bin, velocity=mean.astype(np.float32), unit="mm/s")


def _spikes(file: NWBFile, path: Path, grid: TimeGrid) -> tuple[tuple[str, ...], list[IntArray]]:
    """Names of the held-in units, and the bins of each one's spikes."""
    units = file.units
    columns = units.colnames
    names, spike_bins = [], []
    for row in range(len(units)):
        if "heldout" in columns and units["heldout"][row]:
            continue
        what = f"/units/spike_times of unit {units.id[row]}"
        times = _seconds(units["spike_times"][row], what, path)
        if "obs_intervals" in columns:
            intervals = np.asarray(units["obs_intervals"][row]).reshape(-1, 2)
            if len(intervals):
                times = times[_observed(times, intervals)]
        names.append(str(units.id[row]))
        spike_bins.append(_bins(times, grid))
    if not names:
        raise InputError(f"{path}: /units has no held-in unit, expected at least one")
    return tuple(names), spike_bins


def _observed(
    times: npt.NDArray[np.float64], intervals: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Whether each moment lies in an interval, its ends included. Intervals may overlap."""
    begun = np.searchsorted(np.sort(intervals[:, 0]), times, side="right")
    ended = np.searchsorted(np.sort(intervals[:, 1]), times, side="left")
    return begun > ended


def _events(spike_bins: list[IntArray]) -> Events:
    """Counts by (bin, unit), in order of time."""
    unit = np.repeat(np.arange(len(spike_bins)), [len(b) for b in spike_bins])
    time_bin = np.concatenate(spike_bins)
    pairs, counts = np.unique(np.stack([time_bin, unit], 1), axis=0, return_counts=True)
    return Events(
        unit=pairs[:, 1].astype(np.int64),
        time_bin=pairs[:, 0].astype(np.int64),
        value=counts.astype(np.int64),
    )


def _seconds(values: Any, what: str, path: Path) -> npt.NDArray[np.float64]:
    """Moments that bins can count. Raises InputError on the first that they cannot."""
    seconds = np.asarray(values, np.float64)
    bad = np.flatnonzero(~(np.abs(seconds) < LATEST_S))
    if len(bad):
        raise InputError(
            f"{path}: {what} is {seconds[bad[0]]} s at index {bad[0]}, "
            f"expected numbers below {LATEST_S:.1e}"
        )
    return seconds


def _bins(seconds: npt.NDArray[np.float64], grid: TimeGrid) -> IntArray:
    """Bin of each moment. Whole microseconds first: 0.035 s is in bin 7 of 5 ms, not in bin 6."""
    return np.round(np.asarray(seconds, np.float64) * 1e6).astype(np.int64) // grid.bin_us
