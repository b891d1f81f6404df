"""Single MC_Maze trials in CSV: every spike and every velocity survives the way to a session."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cortex.data.maze_csv import read_maze_csv
from cortex.data.nwb_reader import read_nwb
from cortex.data.nwb_writer import write_nwb
from cortex.errors import InputError
from cortex.time_grid import TimeGrid

DATA = os.environ.get("CORTEX_TEST_DATA")


def _table(start: float, n: int = 50) -> pd.DataFrame:
    ramp = np.arange(n, dtype=float)
    return pd.DataFrame(
        {
            "timestamp": start + ramp * 1e-3,
            "hand_pos_x": ramp,
            "hand_pos_y": ramp,
            "hand_vel_x": ramp + start,
            "hand_vel_y": -ramp,
            "unit_1011": (ramp % 7 == 0).astype(int),
            "unit_2031": 0,
        }
    )


def _write(folder: Path, **tables: pd.DataFrame) -> list[Path]:
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return [folder / f"{name}.csv" for name in tables]


def test_trials_come_in_order_of_time(tmp_path: Path) -> None:
    recording = read_maze_csv(_write(tmp_path, late=_table(30.25), early=_table(20.5)))
    assert recording.unit_ids == (1011, 2031)
    np.testing.assert_allclose(recording.trial_start, [1.5, 11.25])
    np.testing.assert_allclose(recording.trial_stop, [1.55, 11.3])
    assert [len(times) for times in recording.spike_times] == [16, 0]
    # Nothing is known of the time between the trials.
    np.testing.assert_allclose(recording.obs_intervals, [[1.5, 1.55], [11.25, 11.3]])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("timestamp", "soon", "timestamp holds what is no number"),
        ("hand_vel_x", np.nan, "hand_vel_x holds what is no number"),
        ("unit_1011", "x", "unit_1011 holds what is no number"),
        ("unit_1011", 2, "unit_1011 holds more than 0 and 1"),
        ("unit_first", 0, "unit_first has no number"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, column: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_maze_csv(_write(tmp_path, a=_table(1.0).assign(**{column: value})))


def test_the_file_with_other_units_is_named(tmp_path: Path) -> None:
    other = _table(0.5).rename(columns={"unit_2031": "unit_9991"})
    with pytest.raises(InputError, match=r"b\.csv: its units are not those of .*a\.csv"):
        read_maze_csv(_write(tmp_path, a=_table(1.0), b=other))


def test_corrupt_compression_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(_table(1.0, 500).to_csv().encode()))
    content[100:400] = b"\x55" * 300
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match="not a CSV table"):
        read_maze_csv([tmp_path / "a.csv.gz"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_table(1.0)[["timestamp"]], "hand_pos_x missing"),
        (_table(1.0).drop(columns=["unit_1011", "unit_2031"]), "unit_ID missing"),
        (_table(1.0).head(0), "rows missing"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, table: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_maze_csv(_write(tmp_path, a=table))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trial given"):
        read_maze_csv([])
    with pytest.raises(InputError, match="no such file"):
        read_maze_csv([tmp_path / "none.csv"])
    other = _table(9.0).rename(columns={"unit_2031": "unit_9991"})
    with pytest.raises(InputError, match="units are not those"):
        read_maze_csv(_write(tmp_path, a=_table(1.0), b=other))
    with pytest.raises(InputError, match="overlap in time"):
        read_maze_csv(_write(tmp_path, a=_table(1.0), b=_table(1.02)))


if DATA:

    def test_the_real_trials_survive(tmp_path: Path) -> None:
        paths = [Path(str(DATA)) / f"mc_maze_trial_{n}.csv.gz" for n in (748, 1356)]
        write_nwb(read_maze_csv(paths), tmp_path / "maze.nwb")
        session = read_nwb(tmp_path / "maze.nwb", TimeGrid())
        tables = [pd.read_csv(path) for path in paths]
        units = [c for c in tables[0] if c.startswith("unit_")]
        assert len(session.unit_ids) == len(units) == 182
        spikes = np.bincount(session.events.unit, session.events.value, 182)
        assert np.array_equal(spikes, sum(t[units].to_numpy().sum(0) for t in tables))
        assert len(session.trials) == 2
        first = session.behavior.velocity[
            session.behavior.time_bin == session.trials.start_bin[0] + 1
        ]
        np.testing.assert_allclose(
            first[0], tables[0][["hand_vel_x", "hand_vel_y"]].iloc[5:10].mean(), rtol=1e-4
        )
