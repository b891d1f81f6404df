"""Reads hand velocity from an NWB file, by its timestamps."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pynwb import NWBFile

from cortex.data.nwb_times import read_seconds, to_bins
from cortex.errors import InputError
from cortex.events import IntArray
from cortex.session import Behavior, FloatArray
from cortex.time_grid import TimeGrid

# Where several were recorded, the first of these is decoded.
VELOCITY_SERIES = ("hand_vel", "finger_vel", "cursor_vel")

# To mm/s, by the unit that the file states.
VELOCITY_SCALE = {"mm/s": 1.0, "cm/s": 10.0, "m/s": 1000.0}


def read_behavior(file: NWBFile, path: Path, grid: TimeGrid) -> Behavior:
    """Velocity labels, on bins that count from 0 s.

    A bin's label is the mean of the samples whose timestamps fall in it. Without a behaviour module
    there are no labels.

    Raises:
        InputError: the module has no velocity that is known, its unit or shape is unknown, or a
            velocity is not a number where one is needed.
    """
    if "behavior" not in file.processing:
        return Behavior.empty("mm/s")
    series = _velocity_series(file.processing["behavior"].data_interfaces, path)
    sample_bin, velocity = _samples(series, path, grid)
    if not len(sample_bin):
        raise InputError(f"{path}: /processing/behavior/{series.name} holds no number")
    time_bin, mean = _bin_means(sample_bin, velocity)
    return Behavior(time_bin=time_bin, velocity=mean, unit="mm/s", series=series.name)


def _velocity_series(interfaces: Any, path: Path) -> Any:
    found = [name for name in VELOCITY_SERIES if name in interfaces]
    if not found:
        has = ", ".join(sorted(interfaces)) or "nothing"
        raise InputError(
            f"{path}: /processing/behavior has {has}, expected one of {', '.join(VELOCITY_SERIES)}"
        )
    series = interfaces[found[0]]
    where = f"{path}: /processing/behavior/{found[0]}"
    if series.unit not in VELOCITY_SCALE:
        raise InputError(
            f"{where} is in {series.unit!r}, expected one of {', '.join(VELOCITY_SCALE)}"
        )
    if len(series.data.shape) != 2 or series.data.shape[1] != 2:
        raise InputError(f"{where} has shape {series.data.shape}, expected (samples, 2)")
    return series


def _samples(series: Any, path: Path, grid: TimeGrid) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Bins (T,) and velocities (T, 2) in mm/s of the samples that are numbers."""
    where = f"/processing/behavior/{series.name}"
    times = read_seconds(series.get_timestamps(), f"{where}/timestamps", path)
    if len(times) != series.data.shape[0]:
        raise InputError(
            f"{path}: {where} has {series.data.shape[0]} samples and {len(times)} timestamps"
        )
    scale = VELOCITY_SCALE[series.unit] * series.conversion
    velocity = np.asarray(series.data[:], np.float64) * scale + (series.offset or 0.0)
    missing = ~np.isfinite(velocity).all(axis=1)
    if missing.any():
        trials = series.get_ancestor("NWBFile").trials
        _refuse_missing_inside_trials(times[missing], trials, f"{path}: {where}")
        times, velocity = times[~missing], velocity[~missing]
    return to_bins(times, grid), velocity


def _refuse_missing_inside_trials(times: npt.NDArray[np.float64], trials: Any, where: str) -> None:
    """Between trials a velocity may be missing; inside one it may not."""
    start, stop = (np.asarray(trials[name][:]) for name in ("start_time", "stop_time"))
    order = np.argsort(start)
    before = np.searchsorted(start[order], times, side="right") - 1
    inside = np.flatnonzero((before >= 0) & (times < stop[order][before]))
    if len(inside):
        raise InputError(
            f"{where} is not a number at {times[inside[0]]:.3f} s, "
            f"inside trial {order[before[inside[0]]]}; expected numbers inside trials"
        )


def _bin_means(
    sample_bin: IntArray, velocity: npt.NDArray[np.float64]
) -> tuple[IntArray, FloatArray]:
    """Bins that hold samples, and the mean of the samples in each."""
    time_bin, which, counts = np.unique(sample_bin, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(which, column) for column in velocity.T], 1) / counts[:, None]
    return time_bin, mean.astype(np.float32)
