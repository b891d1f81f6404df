"""Reads recordings that come as binned counts in an .npz file."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cortex.errors import InputError
from cortex.events import Events
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid

WINDOW_S = 0.8


def read_binned_npz(path: Path) -> Session:
    """A session with one bin a step.

    The file holds counts (bins, units), vel (bins, 2) in cm/s, trial (bins,), bin_index (bins,)
    within the trial, and bin_s. Trials are independent, so they are laid out with a window of
    silence between them. A trial begins with its first bin in the file; a later one that the file
    leaves out has neither spikes nor a label.

    Raises:
        InputError: the file is missing, is not such an archive, or an array is not as above.
    """
    arrays = _read(path)
    counts, velocity, trial, bin_index = (
        arrays[name] for name in ("counts", "vel", "trial", "bin_index")
    )
    grid = _grid(arrays["bin_s"], path)
    if counts.ndim != 2 or not counts.size:
        raise InputError(
            f"{path}: counts has shape {counts.shape}, expected (bins, units), at least one of each"
        )
    n_bins = len(counts)
    for name, array, shape in (
        ("vel", velocity, (n_bins, 2)),
        ("trial", trial, (n_bins,)),
        ("bin_index", bin_index, (n_bins,)),
    ):
        if array.shape != shape:
            raise InputError(f"{path}: {name} has shape {array.shape}, expected {shape}")
    for name, array in (("counts", counts), ("trial", trial), ("bin_index", bin_index)):
        if array.dtype.kind not in "iu":
            raise InputError(f"{path}: {name} holds {array.dtype}, expected integers")
        if array.min() < 0:
            raise InputError(
                f"{path}: {name} is {array.min()} at bin {array.argmin()}, expected >= 0"
            )
    if velocity.dtype.kind not in "fiu":
        raise InputError(f"{path}: vel holds {velocity.dtype}, expected numbers")
    bad = np.flatnonzero(~np.isfinite(velocity).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: vel is not a number at bin {bad[0]}, expected numbers")
    same = np.diff(trial) == 0
    if (np.diff(trial.astype(np.int64)) < 0).any() or (
        np.diff(bin_index.astype(np.int64))[same] < 1
    ).any():
        raise InputError(f"{path}: bins must be in order of trial, and of bin_index within a trial")
    return _session(path, grid, counts, velocity, trial, bin_index.astype(np.int64))


def _session(
    path: Path, grid: TimeGrid, counts: Any, velocity: Any, trial: Any, bin_index: Any
) -> Session:
    _, first_row, which = np.unique(trial, return_index=True, return_inverse=True)
    last_row = np.append(first_row[1:], len(trial)) - 1
    length = bin_index[last_row] - bin_index[first_row] + 1
    start = np.concatenate([[0], np.cumsum(length[:-1] + grid.window_steps)])
    time_bin = start[which] + bin_index - bin_index[first_row][which]
    sparse = Events.from_counts(counts)
    return Session(
        session_id=path.stem,
        subject=path.stem.split("_")[0],
        unit_ids=tuple(str(i) for i in range(counts.shape[1])),
        grid=grid,
        events=Events(unit=sparse.unit, time_bin=time_bin[sparse.time_bin], value=sparse.value),
        behavior=Behavior(
            time_bin=time_bin, velocity=velocity.astype(np.float32), unit="cm/s", series="vel"
        ),
        trials=Trials(start_bin=start, stop_bin=start + length),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
        names = ("counts", "vel", "trial", "bin_index", "bin_s")
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(
                f"{path}: one bare array, expected an .npz archive of {', '.join(names)}"
            )
        with archive:
            missing = [name for name in names if name not in archive]
            if missing:
                raise InputError(
                    f"{path}: array {missing[0]} is missing, expected {', '.join(names)}"
                )
            # A member that is no array comes as bytes, which the checks then refuse by its shape.
            return {name: np.asarray(archive[name]) for name in names}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable .npz archive: {error}") from error


def _grid(bin_s: Any, path: Path) -> TimeGrid:
    if bin_s.shape != () or bin_s.dtype.kind not in "fiu" or not 1e-3 <= float(bin_s) <= 1.0:
        raise InputError(f"{path}: bin_s is {bin_s!r}, expected seconds from 0.001 to 1")
    return TimeGrid(
        bin_us=round(float(bin_s) * 1e6),
        bins_per_step=1,
        window_steps=max(round(WINDOW_S / float(bin_s)), 8),
    )
