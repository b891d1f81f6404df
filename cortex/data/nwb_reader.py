"""Reads NWB recordings in the schema of the Neural Latents Benchmark, as MC_Maze (DANDI 000128)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pynwb import NWBHDF5IO, NWBFile

from cortex.data.nwb_behavior import read_behavior
from cortex.data.nwb_times import read_seconds, to_bins, within
from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.session import Session, Trials
from cortex.time_grid import TimeGrid


def read_nwb(
    path: Path, grid: TimeGrid, *, include_heldout: bool = False, series: str | None = None
) -> Session:
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
        series: which series of the behaviour module is decoded, such as "cursor_pos", whose
            velocity is then derived; None for hand_vel, finger_vel or cursor_vel.

    Raises:
        InputError: the file is missing, is not NWB, lacks a part, has behaviour without the
            series, or has a time that is not a number, or such a velocity inside a trial while
            units were observed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
            return _session(io.read(), path, grid, include_heldout, series)
    except InputError:
        raise
    except Exception as error:
        # pynwb and h5py raise almost anything on a file that is not what they expect.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable NWB file: {reason}") from error


def _session(
    file: NWBFile, path: Path, grid: TimeGrid, include_heldout: bool, series: str | None
) -> Session:
    if file.units is None or "spike_times" not in file.units.colnames:
        raise InputError(f"{path}: /units has no spike_times, expected spikes of sorted units")
    if file.trials is None:
        raise InputError(f"{path}: /intervals/trials is missing, expected a table of trials")
    spans = _observed_spans(file.units)
    known = len(spans) > 0 and all(len(each) for each in spans)
    behavior = read_behavior(
        file, path, grid, series=series, observed=np.concatenate(spans) if known else None
    )
    start_bin, stop_bin = (
        to_bins(read_seconds(file.trials[name][:], f"/intervals/trials/{name}", path), grid)
        for name in ("start_time", "stop_time")
    )
    unit_ids, spike_unit, spike_bin = _spikes(file, path, grid, spans, include_heldout)
    origin = min(0, *(b.min() for b in (behavior.time_bin, start_bin, spike_bin) if len(b)))
    return Session(
        session_id=file.session_id or path.stem,
        subject=(file.subject and file.subject.subject_id) or "unknown",
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


def _observed_spans(units: Any) -> list[npt.NDArray[np.float64]]:
    """Spans (k, 2) in which each unit was observed; none stands for always."""
    if "obs_intervals" not in units.colnames:
        return [np.empty((0, 2))] * len(units)
    return [each.reshape(-1, 2) for each in _ragged(units, "obs_intervals")]


def _spikes(
    file: NWBFile,
    path: Path,
    grid: TimeGrid,
    spans: list[npt.NDArray[np.float64]],
    include_heldout: bool,
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
    names, spike_bins = [], []
    for row in np.flatnonzero(~heldout):
        times = read_seconds(spikes[row], f"/units/spike_times of unit {ids[row]}", path)
        if len(spans[row]):
            times = times[within(times, spans[row])]
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


def _events(unit: IntArray, time_bin: IntArray, n_units: int) -> Events:
    """Counts by (bin, unit), in order of time."""
    key, counts = np.unique(time_bin * n_units + unit, return_counts=True)
    return Events(unit=key % n_units, time_bin=key // n_units, value=counts.astype(np.int64))
