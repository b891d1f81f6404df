"""Several processes from one program: its errors, its end, and torchrun's environment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cortex.errors import InputError
from training.fitting.launch import launch

PROGRAM = """
import os, pathlib, sys, time
from absl import flags
from cortex import cli
from cortex.errors import InputError
from training.fitting.launch import launch

HOW = flags.DEFINE_string("how", None, "how to end")

def work(argv):
    rank = int(os.environ["RANK"])
    pathlib.Path(f"pid_{rank}").write_text(str(os.getpid()))
    if rank == 1 and HOW.value == "refuse":
        raise InputError("x.nwb: no such file")
    if rank == 1 and HOW.value == "fail":
        raise ZeroDivisionError("by rank 1")
    time.sleep(600)

if __name__ == "__main__":
    cli.run(lambda argv: launch(work, argv, 2))
"""


def _start(folder: Path, how: str) -> "subprocess.Popen[str]":
    (folder / "program.py").write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, "program.py", f"--how={how}"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
            # Where 127.0.0.1 has no name, as in a sandbox, torch warns of it.
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(path: Path, program: "subprocess.Popen[str]") -> int:
    """The process id that a rank leaves in a file."""
    while not (path.exists() and path.read_text()):
        assert program.poll() is None
        time.sleep(0.01)
    return int(path.read_text())


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    with _start(tmp_path, "refuse") as program:
        _, said = program.communicate(timeout=100)
    assert said == "error: x.nwb: no such file\n"
    assert program.returncode == 2


def test_a_failure_is_told_once_and_ends_the_others(tmp_path: Path) -> None:
    with _start(tmp_path, "fail") as program:
        _, said = program.communicate(timeout=100)
    assert said.startswith("error: ")
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("ZeroDivisionError: by rank 1")
    assert program.returncode == 1
    path = tmp_path / "pid_0"
    assert not path.exists() or not _is_alive(int(path.read_text()))


def test_no_process_outlives_the_program(tmp_path: Path) -> None:
    with _start(tmp_path, "sleep") as program:
        pids = [_wait_for(tmp_path / f"pid_{rank}", program) for rank in range(2)]
        assert all(map(_is_alive, pids))
        program.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(map(_is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not any(map(_is_alive, pids))


@pytest.mark.parametrize("count", [1, 3])
def test_torchruns_environment_holds(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    seen: list[list[str]] = []
    launch(seen.append, ["program"], count)
    assert seen == [["program"]]
    with pytest.raises(InputError, match="torchrun started 3 processes, expected the 2 asked for"):
        launch(seen.append, ["program"], 2)
