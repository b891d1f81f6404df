"""Reads single trials of MC_Maze that come as CSV tables at 1 kHz."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cortex.data.recording import Recording
from cortex.errors import InputError

KINEMATICS = ["hand_pos_x", "hand_pos_y", "hand_vel_x", "hand_vel_y"]


def read_maze_csv(paths: Sequence[Path]) -> Recording:
    """Trials as one recording, in order of time.

    A table has a timestamp column in seconds, hand position and velocity in mm and mm/s, and a 0/1
    column for each unit, named unit_ID.

    Raises:
        InputError: a file is missing, is not such a table, or the tables differ in their units.
    """
    if not paths:
        raise InputError("no trial given, expected at least one CSV file")
    tables = [_read(path) for path in paths]
    columns = _unit_columns(tables[0])
    for path, table in zip(paths, tables, strict=True):
        if _unit_columns(table) != columns:
            raise InputError(f"{path}: its units are not those of {paths[0]}")
    tables.sort(key=lambda table: float(table["timestamp"].iloc[0]))
    # Files keep the session's clock, which here starts a little before the first trial.
    origin = float(np.floor(tables[0]["timestamp"].iloc[0])) - 1.0
    whole = pd.concat(tables)
    times = whole["timestamp"].to_numpy(np.float64) - origin
    if (np.diff(times) <= 0).any():
        raise InputError("trials overlap in time, expected different trials of one session")
    spikes = whole[columns].to_numpy() > 0
    start = np.array([table["timestamp"].iloc[0] for table in tables]) - origin
    stop = np.array([table["timestamp"].iloc[-1] for table in tables]) - origin + 1e-3
    return Recording(
        session_id="mc_maze_trials",
        subject="Jenkins",
        description="single trials of MC_Maze",
        unit_ids=tuple(int(c.removeprefix("unit_")) for c in columns),
        spike_times=tuple(times[fired] for fired in spikes.T),
        # What happened between the trials is not in the files.
        obs_intervals=np.stack([start, stop], 1),
        sample_times=times,
        hand_pos=whole[KINEMATICS[:2]].to_numpy(np.float64),
        hand_vel=whole[KINEMATICS[2:]].to_numpy(np.float64),
        trial_start=start,
        trial_stop=stop,
        trial_columns={},
    )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a CSV table: {reason}") from error
    missing = [c for c in ["timestamp", *KINEMATICS] if c not in table.columns]
    units = _unit_columns(table)
    if missing or not units or not len(table):
        lacks = missing[0] if missing else "unit_ID" if len(table) else "rows"
        raise InputError(f"{path}: {lacks} missing, expected an MC_Maze trial at 1 kHz")
    for column in units:
        if not column.removeprefix("unit_").isdecimal():
            raise InputError(
                f"{path}: column {column} has no number, expected names like unit_1011"
            )
    for column in ["timestamp", *KINEMATICS, *units]:
        values = table[column].to_numpy()
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise InputError(f"{path}: {column} holds what is no number, expected numbers only")
        if column in units and not np.isin(values, (0, 1)).all():
            raise InputError(f"{path}: {column} holds more than 0 and 1, expected one bin a spike")
    return table


def _unit_columns(table: pd.DataFrame) -> list[str]:
    return [c for c in table.columns if c.startswith("unit_")]
