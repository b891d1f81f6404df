"""Reads the velocity that is decoded from an NWB file, by its timestamps."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pynwb import NWBFile

from cortex.data.nwb_times import read_seconds, to_bins, within
from cortex.errors import InputError
from cortex.events import IntArray
from cortex.session import Behavior, FloatArray
from cortex.time_grid import TimeGrid

Array = npt.NDArray[np.float64]

# Where several were recorded, the first of these is decoded.
VELOCITY_SERIES = ("hand_vel", "finger_vel", "cursor_vel")

# To mm/s and to mm, by the unit that the file states.
VELOCITY_SCALE = {"mm/s": 1.0, "cm/s": 10.0, "m/s": 1000.0}
POSITION_SCALE = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "meters": 1000.0}

# How closely the end of a span of observation and the first missing sample agree, in seconds.
EDGE_S = 1e-3


def read_behavior(
    file: NWBFile,
    path: Path,
    grid: TimeGrid,
    *,
    series: str | None = None,
    observed: Array | None = None,
) -> Behavior:
    """Velocity labels, on bins that count from 0 s.

    A bin's label is the mean of the samples whose timestamps fall in it. Without a behaviour module
    there are no labels.

    Args:
        file: the open file.
        path: where it is, for messages.
        grid: the time grid.
        series: which of the module's series; None for the first of VELOCITY_SERIES that it has. Of
            a position the derivative is taken, never across a gap.
        observed: (k, 2) spans in which units were observed; None for always. Elsewhere a sample may
            be NaN even in a trial: files at a fixed rate have no other way to leave a gap.

    Raises:
        InputError: the module lacks the series, its unit or shape is unknown, or a sample is not a
            number where one is needed.
    """
    if "behavior" not in file.processing:
        return Behavior.empty("mm/s")
    chosen = _series(file.processing["behavior"].data_interfaces, path, series)
    times, values = _samples(chosen, path, file.trials, observed)
    if chosen.unit in POSITION_SCALE:
        times, values = _derivative(times, values, f"{path}: /processing/behavior/{chosen.name}")
    if not len(times):
        raise InputError(f"{path}: /processing/behavior/{chosen.name} holds no number")
    time_bin, mean = _bin_means(to_bins(times, grid), values)
    return Behavior(time_bin=time_bin, velocity=mean, unit="mm/s", series=chosen.name)


def _series(interfaces: Any, path: Path, name: str | None) -> Any:
    wanted = VELOCITY_SERIES if name is None else (name,)
    found = [each for each in wanted if each in interfaces]
    if not found:
        has = ", ".join(sorted(interfaces)) or "nothing"
        one_of = "one of " if len(wanted) > 1 else ""
        raise InputError(
            f"{path}: /processing/behavior has {has}, expected {one_of}{', '.join(wanted)}"
        )
    series = interfaces[found[0]]
    where = f"{path}: /processing/behavior/{found[0]}"
    scales = VELOCITY_SCALE if name is None else {**VELOCITY_SCALE, **POSITION_SCALE}
    unit = getattr(series, "unit", None)
    if unit not in scales:
        raise InputError(f"{where} is in {unit!r}, expected one of {', '.join(scales)}")
    if len(series.data.shape) != 2 or series.data.shape[1] != 2:
        raise InputError(f"{where} has shape {series.data.shape}, expected (samples, 2)")
    return series


def _samples(series: Any, path: Path, trials: Any, observed: Array | None) -> tuple[Array, Array]:
    """Times (T,) in seconds and values (T, 2) in mm or mm/s of the samples that are numbers."""
    where = f"/processing/behavior/{series.name}"
    times = read_seconds(series.get_timestamps(), f"{where}/timestamps", path)
    if len(times) != series.data.shape[0]:
        raise InputError(
            f"{path}: {where} has {series.data.shape[0]} samples and {len(times)} timestamps"
        )
    # Conversion and offset lead to the unit that the file states.
    stated = np.asarray(series.data[:], np.float64) * series.conversion + (series.offset or 0.0)
    values = stated * {**VELOCITY_SCALE, **POSITION_SCALE}[series.unit]
    missing = ~np.isfinite(values).all(axis=1)
    if missing.any():
        needed = times[missing]
        if observed is not None:
            needed = needed[within(needed, observed + np.array([EDGE_S, -EDGE_S]))]
        _refuse_inside_trials(needed, trials, f"{path}: {where}")
        times, values = times[~missing], values[~missing]
    return times, values


def _refuse_inside_trials(missing: Array, trials: Any, where: str) -> None:
    """Raises InputError on the first of the moments that lies inside a trial."""
    start, stop = (np.asarray(trials[name][:]) for name in ("start_time", "stop_time"))
    order = np.argsort(start)
    before = np.searchsorted(start[order], missing, side="right") - 1
    inside = np.flatnonzero((before >= 0) & (missing < stop[order][before]))
    if len(inside):
        raise InputError(
            f"{where} is not a number at {missing[inside[0]]:.3f} s, "
            f"inside trial {order[before[inside[0]]]}; expected numbers inside trials"
        )


def _derivative(times: Array, position: Array, where: str) -> tuple[Array, Array]:
    """Central differences, at the samples that have a neighbour on either side and no gap."""
    if len(times) < 3:
        return times[:0], position[:0]
    step = np.diff(times)
    back = np.flatnonzero(step <= 0)
    if len(back):
        raise InputError(
            f"{where}/timestamps is {times[back[0] + 1]} s after {times[back[0]]} s, "
            "expected ascending times"
        )
    joined = step < 1.5 * np.median(step)
    inner = joined[:-1] & joined[1:]
    velocity = (position[2:] - position[:-2]) / (times[2:] - times[:-2])[:, None]
    return times[1:-1][inner], velocity[inner]


def _bin_means(sample_bin: IntArray, velocity: Array) -> tuple[IntArray, FloatArray]:
    """Bins that hold samples, and the mean of the samples in each."""
    time_bin, which, counts = np.unique(sample_bin, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(which, column) for column in velocity.T], 1) / counts[:, None]
    return time_bin, mean.astype(np.float32)
