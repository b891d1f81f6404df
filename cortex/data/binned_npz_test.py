"""Binned archives: what they hold comes back, and each bad array is named."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.data.binned_npz import read_binned_npz
from cortex.data.open_session import open_session
from cortex.errors import InputError
from cortex.time_grid import TimeGrid


def _arrays(**changes: Any) -> dict[str, Any]:
    """Two trials of 3 and 2 kept bins; bin 1 of the first was left out."""
    arrays = {
        "counts": np.array([[1, 0], [0, 2], [0, 0], [3, 0], [0, 1]], np.uint8),
        "vel": np.arange(10.0).reshape(5, 2),
        "trial": np.array([4, 4, 4, 9, 9]),
        "bin_index": np.array([0, 2, 3, 0, 1]),
        "bin_s": np.float64(0.1),
    }
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mihi_x.npz"


def test_trials_are_laid_out_apart(path: Path) -> None:
    np.savez(path, **_arrays())
    session = read_binned_npz(path)
    assert session.grid == TimeGrid(bin_us=100_000, bins_per_step=1, window_steps=8)
    assert session.trials.start_bin.tolist() == [0, 12]
    assert session.trials.stop_bin.tolist() == [4, 14]
    assert session.behavior.time_bin.tolist() == [0, 2, 3, 12, 13]
    assert session.events.time_bin.tolist() == [0, 2, 12, 13]
    assert session.events.value.tolist() == [1, 2, 3, 1]
    assert (session.session_id, session.subject) == ("mihi_x", "mihi")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vel": None}, "array vel is missing"),
        ({"counts": np.zeros((0, 2), int)}, "counts has shape"),
        ({"counts": np.zeros((5, 0), int)}, "at least one of each"),
        ({"counts": np.int64(3)}, r"counts has shape \(\)"),
        ({"counts": np.zeros((5, 2))}, "counts holds float64, expected integers"),
        ({"counts": np.full((5, 2), -1)}, "counts is -1 at bin 0"),
        ({"vel": np.zeros((4, 2))}, r"vel has shape \(4, 2\), expected \(5, 2\)"),
        ({"vel": np.full((5, 2), np.nan)}, "vel is not a number at bin 0"),
        ({"trial": np.array([4, 4, 9, 4, 9])}, "in order of trial"),
        ({"bin_index": np.array([0, 0, 3, 0, 1])}, "in order of trial"),
        ({"bin_s": np.float64(-1)}, "bin_s is"),
    ],
)
def test_each_bad_array_is_named(path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(path, **_arrays(**changes))
    with pytest.raises(InputError, match=message) as caught:
        read_binned_npz(path)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(path: Path) -> None:
    np.savez(path, **_arrays(trial=np.array([object()] * 5)))
    with pytest.raises(InputError, match=r"not a readable \.npz archive"):
        read_binned_npz(path)


def test_truncated_archive_is_refused(path: Path) -> None:
    np.savez(path, **_arrays())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"not a readable \.npz archive"):
        read_binned_npz(path)


def test_corrupt_compression_is_refused(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (5, 2000))
    np.savez_compressed(path, **_arrays(counts=noise))
    content = bytearray(path.read_bytes())
    content[300:900] = b"\xff" * 600
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable \.npz archive"):
        read_binned_npz(path)


def test_members_that_are_no_arrays_are_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in _arrays():
            archive.writestr(name, b"text")
    with pytest.raises(InputError, match="bin_s is"):
        read_binned_npz(path)


def test_open_session_goes_by_the_ending(path: Path, tmp_path: Path) -> None:
    np.savez(path, **_arrays())
    assert open_session(path).session_id == "mihi_x"
    assert open_session(path, series="vel").behavior.series == "vel"
    with pytest.raises(InputError, match="has no series 'hand_vel', expected vel"):
        open_session(path, series="hand_vel")
    with pytest.raises(InputError, match="cannot be read as TimeGrid"):
        open_session(path, TimeGrid())
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        open_session(tmp_path / "folder.npz")
    for name, message in (("x.txt", "unknown kind"), ("no.nwb", "no such file"), ("", "unknown")):
        with pytest.raises(InputError, match=message):
            open_session(tmp_path / name)
