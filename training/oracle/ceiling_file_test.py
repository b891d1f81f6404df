"""The ceiling's file: whole after every trial, taken up again, refused where it is another's."""

import json
from pathlib import Path

import numpy as np
import pytest

from cortex.errors import InputError
from training.evaluation.metrics import velocity_r2
from training.oracle.ceiling import read_ceiling
from training.oracle.ceiling_file import CeilingFile
from training.oracle.estimate import Estimate

IDENTITY = {"session_id": "s", "digest": "d" * 64, "split_seed": 0, "seed": 0, "particles": 500}


def _add(file: CeilingFile, trial: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(trial)
    true, noise = rng.normal(0, 300, (2, 40, 2)).astype(np.float32)
    causal = true + noise / 3
    file.add(trial, true, Estimate(causal=causal, smoothed=true + noise / 6))
    return true, causal


def test_every_trial_adds_to_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "oracle.json"
    pairs = [_add(CeilingFile(path, IDENTITY), 7)]
    assert json.loads(path.read_text())["r2_causal_interval"] is None
    pairs.append(_add(CeilingFile(path, IDENTITY), 2))
    again = CeilingFile(path, IDENTITY)
    assert 7 in again
    assert 2 in again
    assert 3 not in again
    ceiling = read_ceiling(path, digest="d" * 64)
    assert ceiling.trials == (7, 2)
    assert ceiling.points == 80
    true, causal = (np.concatenate(each) for each in zip(*pairs, strict=True))
    assert ceiling.r2_causal == pytest.approx(velocity_r2(true, causal), abs=1e-5)
    assert ceiling.r2_causal < ceiling.r2_smoothed < 1
    low, high = json.loads(path.read_text())["r2_causal_interval"]
    assert low <= ceiling.r2_causal <= high
    assert [each.name for each in tmp_path.iterdir()] == ["oracle.json"]


@pytest.mark.parametrize("field", ["digest", "particles", "seed"])
def test_another_ceiling_is_not_gone_on_with(tmp_path: Path, field: str) -> None:
    _add(CeilingFile(tmp_path / "oracle.json", IDENTITY), 7)
    with pytest.raises(InputError, match="is not a ceiling of this session with these settings"):
        CeilingFile(tmp_path / "oracle.json", {**IDENTITY, field: 1})


def test_what_is_no_ceiling_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "oracle.json"
    with pytest.raises(InputError, match=r"oracle.json: cannot be read: No such file"):
        read_ceiling(path)
    for text in ("spikes", "[]", '{"session_id": "s"}', '"s"'):
        path.write_text(text)
        with pytest.raises(InputError, match="not a ceiling, expected"):
            read_ceiling(path)
        with pytest.raises(InputError, match="is not a ceiling of this session"):
            CeilingFile(path, IDENTITY)
    path.unlink()
    _add(CeilingFile(path, IDENTITY), 7)
    with pytest.raises(
        InputError, match="ceiling of another session, 's' with digest dddddddddddd"
    ):
        read_ceiling(path, digest="e" * 64)
    with pytest.raises(InputError, match="no such directory"):
        CeilingFile(tmp_path / "none" / "oracle.json", IDENTITY)
