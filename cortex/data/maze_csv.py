"""Reads single trials of MC_Maze that come as CSV tables at 1 kHz."""

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
    tables = sorted((_read(path) for path in paths), key=lambda t: float(t["timestamp"].iloc[0]))
    columns = [c for c in tables[0].columns if c.startswith("unit_")]
    for path, table in zip(paths, tables, strict=True):
        if [c for c in table.columns if c.startswith("unit_")] != columns:
            raise InputError(f"{path}: its units are not those of the first trial")
    # Files keep the session's clock, which here starts a little before the first trial.
    origin = float(np.floor(tables[0]["timestamp"].iloc[0])) - 1.0
    whole = pd.concat(tables)
    times = whole["timestamp"].to_numpy(np.float64) - origin
    if (np.diff(times) <= 0).any():
        raise InputError("trials overlap in time, expected different trials of one session")
    spikes = whole[columns].to_numpy() > 0
    return Recording(
        session_id="mc_maze_trials",
        subject="Jenkins",
        description="single trials of MC_Maze",
        unit_ids=tuple(int(c.removeprefix("unit_")) for c in columns),
        spike_times=tuple(times[fired] for fired in spikes.T),
        obs_interval=(0.0, float(times[-1]) + 1.0),
        sample_times=times,
        hand_pos=whole[KINEMATICS[:2]].to_numpy(np.float64),
        hand_vel=whole[KINEMATICS[2:]].to_numpy(np.float64),
        trial_start=np.array([t["timestamp"].iloc[0] for t in tables]) - origin,
        trial_stop=np.array([t["timestamp"].iloc[-1] for t in tables]) - origin + 1e-3,
        trial_columns={},
    )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a CSV table: {str(error).splitlines()[0]}") from error
    missing = [c for c in ["timestamp", *KINEMATICS] if c not in table.columns]
    if missing or not any(c.startswith("unit_") for c in table.columns) or not len(table):
        lacks = missing[0] if missing else "unit_ID" if len(table) else "rows"
        raise InputError(f"{path}: {lacks} missing, expected an MC_Maze trial at 1 kHz")
    return table
