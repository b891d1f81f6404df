"""The binaries that adapt, run as a user runs them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cortex.checkpoint import load_checkpoint, save_checkpoint
from cortex.data.open_session import open_session
from tools.measured.table import read
from training.binary_for_tests import run_binary
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, train_decoder

FROM = ("--model=source", "--source_session=old.npz", "--session=new.npz")
SHORT = ("--unit_steps=2", "--whole_steps=1")


def _write(path: Path, units: int, seed: int) -> None:
    """Ten trials of eight bins."""
    rng = np.random.default_rng(seed)
    velocity = rng.normal(size=(80, 2))
    rate = np.exp(velocity @ rng.normal(size=(2, units)) * 0.5)
    np.savez(
        path,
        counts=rng.poisson(rate).astype(np.uint8),
        vel=velocity,
        trial=np.repeat(np.arange(10), 8),
        bin_index=np.tile(np.arange(8), 10),
        bin_s=0.05,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work")
    _write(path / "old.npz", units=6, seed=0)
    _write(path / "new.npz", units=8, seed=1)
    old = TrainingSession(session=open_session(path / "old.npz"), trials=range(10))
    save_checkpoint(
        train_decoder([old], TrainConfig(fit=FitConfig(steps=2, batch_trials=4))), path / "source"
    )
    return path


def test_an_adapted_decoder_is_written_and_scored(folder: Path) -> None:
    done = run_binary(
        folder, "adapt", *FROM, *SHORT, "--output=adapted", "--trials=2", "--keep_source"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"new: adapted to 2 trials, held-out velocity R2 -?\d\.\d{3}", done.stdout)
    adapted = load_checkpoint(folder / "adapted")
    assert len(adapted.unit_ids) == 14
    assert adapted.card["adapted_from"]["digest"] == load_checkpoint(folder / "source").digest
    assert adapted.card["trials"] == len(adapted.card["sessions"][0]["train_trials"]) == 2
    assert len(adapted.card["test_trials"][0]) == 2


def test_a_curve_is_measured(folder: Path) -> None:
    where = ("--output=curve", "--measured=measured", "--rows=adapt/new")
    done = run_binary(
        folder, "adaptation_curve", *FROM, *SHORT, *where, "--curve=1,all", "--splits=0"
    )
    assert done.returncode == 0, done.stderr
    points = json.loads((folder / "curve" / "curve.json").read_text())["points"]
    assert [(p["k"], p["trials"], p["steps"]) for p in points] == [
        *[(1, 1, 3)] * 2,
        *[(None, 8, 3)] * 2,
    ]
    table = read(folder / "measured" / "adapt_new.json")
    assert [row.name for row in table.rows] == [
        f"adapt/new/k_{k}/{kind}" for k in ("1", "all") for kind in ("adapted", "scratch")
    ]
    assert (folder / "curve" / "curve.png").is_file()


@pytest.mark.parametrize(
    ("binary", "arguments", "message"),
    [
        ("adapt", [*FROM, "--trials=0"], "cannot learn from 0 trials, expected 1 to 8"),
        ("adaptation_curve", [*FROM, "--curve=1,none"], "--curve has 'none'"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, binary: str, arguments: list[str], message: str
) -> None:
    done = run_binary(folder, binary, *arguments, "--output=x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr.splitlines()[-1]
