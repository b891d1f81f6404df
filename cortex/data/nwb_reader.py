"""Reads an NWB recording in the schema of MC_Maze (DANDI 000128)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pynwb import NWBHDF5IO, NWBFile

from cortex.data.nwb_behavior import read_behavior
from cortex.data.nwb_times import read_seconds, to_bins
from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.session import Session, Trials
from cortex.time_grid import TimeGrid


def read_nwb(path: Path, grid: TimeGrid, *, include_heldout: bool = False) -> Session:
    """Puts a recording on a time grid.

    Spikes count where their unit was observed; units that the benchmark holds out are left out
    unless asked for. Behaviour goes by its timestamps: a bin's label is the mean of the samples in
    it, and a bin without samples has none. A file without a behaviour module, such as the
    benchmark's test files, gives a session without labels. Every trial column NAME_time is the
    event NAME; one that is NaN, or before bin 0, did not happen.

    Args:
        path: the file.
        grid: the time grid; bin 0 starts at 0 s, or at the first spike or sample before that.
        include_heldout: also read the units that the benchmark holds out.

    Raises:
        InputError: the file is missing, is not NWB, lacks a part, has behaviour but no velocity
            that is known (hand_vel, finger_vel or cursor_vel), or has a time that is not a
            number, or such a velocity inside a trial.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
            return _session(io.read(), path, grid, include_heldout)
    except InputError:
        raise
    except Exception as error:
        # pynwb and h5py raise almost anything on a file that is not what they expect.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable NWB file: {reason}") from error


def _session(file: NWBFile, path: Path, grid: TimeGrid, include_heldout: bool) -> Session:
    if file.units is None or "spike_times" not in file.units.colnames:
        raise InputError(f"{path}: /units has no spike_times, expected spikes of sorted units")
    if file.trials is None:
        raise InputError(f"{path}: /intervals/trials is missing, expected a table of trials")
    behavior = read_behavior(file, path, grid)
    start_bin, stop_bin = (
        to_bins(read_seconds(file.trials[name][:], f"/intervals/trials/{name}", path), grid)
        for name in ("start_time", "stop_time")
    )
    unit_ids, spike_unit, spike_bin = _spikes(file, path, grid, include_heldout)
    origin = min(0, *(b.min() for b in (behavior.time_bin, start_bin, spike_bin) if len(b)))
    return Session(
        session_id=file.session_id or path.stem,
        subject=file.subject.subject_id if file.subject else "unknown",
        unit_ids=unit_ids,
        grid=grid,
        events=_events(spike_unit, spike_bin - origin, len(unit_ids)),
        behavior=replace(behavior, time_bin=behavior.time_bin - origin),
        trials=Trials(
            start_bin=start_bin - origin,
            stop_bin=stop_bin - origin,
            event_bins=_event_bins(file.trials, path, grid, origin),
            split=_split(file.trials),
        ),
    )


def _event_bins(trials: Any, path: Path, grid: TimeGrid, origin: int) -> dict[str, IntArray]:
    """Bin of every event that the table of trials has a time for."""
    events = {}
    for column in trials.colnames:
        if not column.endswith("_time") or column in ("start_time", "stop_time"):
            continue
        values = np.asarray(trials[column][:])
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            continue
        absent = np.isnan(values.astype(np.float64))
        where = f"/intervals/trials/{column}"
        bins = to_bins(read_seconds(np.where(absent, 0.0, values), where, path), grid) - origin
        events[column.removesuffix("_time")] = np.where(absent | (bins < 0), -1, bins)
    return events


def _split(trials: Any) -> tuple[str, ...]:
    if "split" not in trials.colnames:
        return ()
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in trials["split"][:])


def _spikes(
    file: NWBFile, path: Path, grid: TimeGrid, include_heldout: bool
) -> tuple[tuple[str, ...], IntArray, IntArray]:
    """Names of the units that are read, and the unit and bin of every spike."""
    units = file.units
    heldout = (
        np.asarray(units["heldout"][:], np.bool_)
        if "heldout" in units.colnames and not include_heldout
        else np.zeros(len(units), np.bool_)
    )
    ids = np.asarray(units.id[:])
    spikes = _ragged(units, "spike_times")
    intervals = _ragged(units, "obs_intervals") if "obs_intervals" in units.colnames else None
    names, spike_bins = [], []
    for row in np.flatnonzero(~heldout):
        times = read_seconds(spikes[row], f"/units/spike_times of unit {ids[row]}", path)
        if intervals is not None and len(intervals[row]):
            times = times[_observed(times, intervals[row].reshape(-1, 2))]
        names.append(str(ids[row]))
        spike_bins.append(to_bins(times, grid))
    if not names:
        raise InputError(f"{path}: /units has no held-in unit, expected at least one")
    spike_unit = np.repeat(np.arange(len(names)), [len(b) for b in spike_bins])
    return tuple(names), spike_unit, np.concatenate(spike_bins)


def _ragged(units: Any, name: str) -> list[npt.NDArray[np.float64]]:
    """A column with one array a unit. Read whole: one read a unit is many times slower."""
    column = units[name]
    return np.split(np.asarray(column.target.data[:]), np.asarray(column.data[:])[:-1])


def _observed(
    times: npt.NDArray[np.float64], intervals: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Whether each moment lies in an interval, its ends included. Intervals may overlap."""
    begun = np.searchsorted(np.sort(intervals[:, 0]), times, side="right")
    ended = np.searchsorted(np.sort(intervals[:, 1]), times, side="left")
    return begun > ended


def _events(unit: IntArray, time_bin: IntArray, n_units: int) -> Events:
    """Counts by (bin, unit), in order of time."""
    key, counts = np.unique(time_bin * n_units + unit, return_counts=True)
    return Events(unit=key % n_units, time_bin=key // n_units, value=counts.astype(np.int64))
