"""The log of a run: nothing twice after a resume, readable curves, and W&B without a network."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from cortex.errors import InputError
from training.fitting.run_log import RunLog


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _write(folder: Path, losses: dict[int, float], **kinds: bool) -> None:
    with RunLog(folder, **{"tensorboard": False, "wandb": False, **kinds}) as log:
        for step, loss in losses.items():
            log.write(step, {"loss": loss})
            log.write(step, {"validation_r2": -loss})


def test_a_resumed_run_leaves_nothing_twice(tmp_path: Path) -> None:
    _write(tmp_path, {10: 3.0, 20: 2.0, 30: 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    _write(tmp_path, {20: 2.5, 30: 1.5})
    expected: list[dict[str, float]] = []
    for step, loss in ((10, 3.0), (20, 2.5), (30, 1.5)):
        expected += [{"step": step, "loss": loss}, {"step": step, "validation_r2": -loss}]
    assert _lines(tmp_path) == expected


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunLog(None, tensorboard=True, wandb=True) as log:
        log.write(10, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        RunLog(tmp_path / "file" / "run", tensorboard=False, wandb=False)


def test_tensorboard_shows_a_resumed_run_once(tmp_path: Path) -> None:
    _write(tmp_path, {10: 3.0, 20: 2.0, 30: 1.0}, tensorboard=True)
    _write(tmp_path, {20: 2.5, 30: 1.5}, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "validation_r2"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 3.0), (20, 2.5), (30, 1.5)]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of one's own, and nothing in the environment that W&B would heed."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    yield home
    # Set by the log, for the rest of a process.
    for kind in ("CACHE", "CONFIG", "DATA"):
        os.environ.pop(f"WANDB_{kind}_DIR", None)


def test_wandb_needs_no_network_and_stays_in_the_folder(
    bare: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    _write(run, {10: 3.25, 20: 2.75}, wandb=True)
    # As at the end of the process: its service writes out what it holds.
    wandb.teardown()
    assert capfd.readouterr() == ("", "")
    assert not list(bare.iterdir())
    (written,) = run.glob("wandb/offline-run-*/*.wandb")
    # Protocol buffers in uncompressed records, for which the package has no reader.
    content = written.read_bytes()
    for part in (b"cortex", b"loss", b"3.25", b"2.75", b"validation_r2", b"-3.25", b"-2.75"):
        assert part in content
