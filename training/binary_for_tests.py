"""For tests: the training binaries, started as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path


def start_binary(folder: Path, binary: str, *arguments: str) -> "subprocess.Popen[str]":
    """Starts a binary of this package in a folder, with its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", f"training.{binary}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_binary(folder: Path, binary: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a binary of this package in a folder to its end, of which four minutes are enough."""
    process = start_binary(folder, binary, *arguments)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
