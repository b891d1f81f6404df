"""training:baselines, run as a user runs it."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.binary_for_tests import run_binary, start_binary


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_binary(folder, "baselines", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    velocity = rng.normal(size=(120, 2))
    np.savez(
        tmp_path / "bins.npz",
        counts=rng.poisson(1 + np.abs(velocity @ rng.normal(size=(2, 6)))),
        vel=velocity,
        trial=np.repeat(np.arange(12), 10),
        bin_index=np.tile(np.arange(10), 12),
        bin_s=0.05,
    )
    return tmp_path


def test_fits_are_kept_and_shown(folder: Path) -> None:
    flags = ("--session=bins.npz", "--output=out", "--budget=2", "--splits=0,1", "--max_steps=2")
    first = _run(folder, *flags, "--kinds=wiener")
    assert first.returncode == 0, first.stderr
    fits = (folder / "out" / "fits.jsonl").read_text()
    assert len(fits.splitlines()) == 6
    both = _run(
        *(folder, *flags, "--kinds=wiener,gru", "--measured=tables", "--rows=r2/here"),
        "--row_names=wiener=ridge",
    )
    assert both.returncode == 0, both.stderr
    assert (folder / "out" / "fits.jsonl").read_text().startswith(fits)
    content = json.loads((folder / "out" / "comparison.json").read_text())
    decoders = {d["kind"]: d for d in content["sessions"][0]["decoders"]}
    assert [d["fits"] for d in decoders.values()] == [6, 6]
    table = json.loads((folder / "tables" / "r2_here.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["r2/here/ridge", "r2/here/gru"]
    assert table["rows"][1]["value"] == decoders["gru"]["mean"]
    assert table["rows"][1]["baselines"] == {"ridge": decoders["wiener"]["mean"]}
    assert f"{decoders['wiener']['mean']:.3f}" in both.stdout


def test_bad_input_is_one_line(folder: Path) -> None:
    done = _run(folder, "--session=bins.npz", "--output=out", "--splits=0,x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "error: --splits=0,x, expected different seeds from 0 on, as in 0,1,2"
    )


def test_workers_end_with_a_parent_that_was_killed(folder: Path) -> None:
    short = ("--splits=0,1,2", "--kinds=gru", "--budget=4", "--processes=2", "--max_steps=500")
    process = start_binary(folder, "baselines", "--session=bins.npz", "--output=out", *short)
    workers = _eventually(lambda: _children(process.pid, "spawn_main"), 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not _eventually(lambda: [pid for pid in workers if Path(f"/proc/{pid}").exists()], 0)


def _children(parent: int, command: str) -> list[int]:
    """Processes whose command line has a word in it."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(c) for c in children if command in Path(f"/proc/{c}/cmdline").read_text()]


def _eventually(look: Callable[[], list[int]], number: int) -> list[int]:
    """What a look finds once it is so many, or after a minute."""
    until = time.monotonic() + 60
    while len(found := look()) != number and time.monotonic() < until:
        time.sleep(0.05)
    return found
