"""Training in several processes, killed and resumed, as a user starts it.

Starting a process costs far more than training here, so the tests share their runs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader

from cortex.checkpoint import Checkpoint, load_checkpoint
from cortex.data.nwb_writer import write_nwb
from cortex.data.open_session import open_session
from cortex.data.simulator import SimulatorConfig, simulate
from training.fitting.provenance import session_digest, versions

STEPS, SAVE_EVERY = 12, 2
ALONE = ("-m", "training.train")
LAUNCHED = (*ALONE, "--processes=2")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *ALONE)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a finished run left.

    Attributes:
        folder: its run folder; its checkpoint is beside it.
    """

    folder: Path

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The decoder."""
        return load_checkpoint(self.folder.with_suffix(".decoder"))

    @property
    def losses(self) -> list[float]:
        """One for every save."""
        lines = [json.loads(x) for x in (self.folder / "metrics.jsonl").read_text().splitlines()]
        assert [x["step"] for x in lines] == list(range(SAVE_EVERY, STEPS + 1, SAVE_EVERY))
        return [x["loss"] for x in lines]


def _command(folder: Path, how: tuple[str, ...]) -> list[str]:
    return [
        *(sys.executable, *how),
        *("--session=maze.nwb", f"--output={folder.with_suffix('.decoder')}"),
        *(f"--run_folder={folder}", f"--save_every={SAVE_EVERY}", f"--steps={STEPS}"),
        *("--batch_trials=4", "--crop_steps=40", "--dropout=0"),
    ]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def _call(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def _run(folder: Path, how: tuple[str, ...]) -> Run:
    done = _call(_command(folder, how), folder.parent)
    assert done.returncode == 0, done.stderr
    return Run(folder=folder)


def _kill_after_saving(folder: Path, step: int) -> None:
    """Starts a run in two processes, and kills them all once a step's state is on the disk."""
    saved = folder / f"step_{step:08d}" / ".metadata"
    with subprocess.Popen(
        _command(folder, LAUNCHED),
        cwd=folder.parent,
        env=_environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        while not saved.exists():
            assert running.poll() is None
            time.sleep(0.005)
        os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert not folder.with_suffix(".decoder").exists()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small session in it."""
    path = tmp_path_factory.mktemp("work")
    write_nwb(simulate(SimulatorConfig(trials=8, units=30)), path / "maze.nwb")
    return path


@pytest.fixture(scope="module")
def one(work: Path) -> Run:
    """An unbroken run in one process."""
    return _run(work / "one", ALONE)


@pytest.fixture(scope="module")
def two(work: Path) -> Run:
    """An unbroken run in two processes."""
    return _run(work / "two", TORCHRUN)


@pytest.fixture(scope="module")
def killed(work: Path) -> Path:
    """The run folder of two processes that were killed."""
    folder = work / "killed"
    _kill_after_saving(folder, 4)
    return folder


def _assert_close(run: Run, other: Run) -> None:
    """Equal to rounding, which Adam lets grow in the weights that hardly matter."""
    assert run.losses == pytest.approx(other.losses, rel=1e-4)
    theirs = other.checkpoint.model.state_dict()
    for name, tensor in run.checkpoint.model.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-4, msg=name)


def test_a_seed_fixes_the_weights_in_a_fresh_interpreter(work: Path, one: Run) -> None:
    again = _run(work / "again", ALONE)
    assert again.losses == one.losses
    assert again.checkpoint.digest == one.checkpoint.digest


def test_two_processes_compute_what_one_does(one: Run, two: Run) -> None:
    _assert_close(two, one)


def test_each_process_saves_its_own_shards(two: Run) -> None:
    reader = FileSystemReader(two.folder / f"step_{STEPS:08d}")
    stored = reader.read_metadata().storage_data
    for kind in ("model.", "optimizer.", "average."):
        parts = [
            stored[index].relative_path
            for index in stored
            if index.fqn.startswith(kind) and "blocks.0.up.weight" in index.fqn
        ]
        assert {part.split("_")[2] for part in parts} == {"0", "1"}, kind


def test_killed_and_resumed_it_ends_as_the_unbroken_run(work: Path, two: Run, killed: Path) -> None:
    folder = Path(shutil.copytree(killed, work / "resumed"))
    resumed = _run(folder, TORCHRUN)
    assert resumed.losses == two.losses
    assert resumed.checkpoint.digest == two.checkpoint.digest


def test_another_number_of_processes_can_take_it_up(work: Path, one: Run, killed: Path) -> None:
    folder = Path(shutil.copytree(killed, work / "fewer"))
    _assert_close(_run(folder, ALONE), one)


def test_the_card_names_every_input(work: Path, two: Run) -> None:
    session, card = open_session(work / "maze.nwb", None), two.checkpoint.card
    (data,) = card["sessions"]
    assert data["digest"] == session_digest(session)
    (test,) = card["test_trials"]
    assert sorted(data["train_trials"] + test) == list(range(8))
    assert card["config"]["fit"]["steps"] == STEPS
    assert card["config"]["fit"]["augmentation"]["crop_steps"] == 40
    assert card["versions"] == versions()
    assert card["processes"] == 2
    assert card["device"] == "cpu"
    assert "--dropout=0" in card["arguments"]
    assert card["init_from"] is None


def test_curves_need_a_run_folder(tmp_path: Path) -> None:
    done = _call([sys.executable, *ALONE, "--session=x.nwb", "--output=x", "--wandb"], tmp_path)
    assert done.returncode == 1
    assert "--tensorboard and --wandb need --run_folder" in done.stderr
    assert "Traceback" not in done.stderr
