"""The binary, run as a user runs it: goes on where it was, and refuses other files."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cortex.data.nwb_writer import write_nwb
from cortex.data.open_session import open_session
from cortex.data.simulator import SimulatorConfig, simulate
from training.binary_for_tests import run_binary
from training.fitting.provenance import session_digest
from training.oracle.ceiling import read_ceiling
from training.samples.splits import split_trials


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_binary(folder, "simulated_ceiling", "--particles=44", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    recording = simulate(SimulatorConfig(trials=12, units=8))
    write_nwb(recording, folder / "s.nwb")
    write_nwb(replace(recording, notes=""), folder / "unknown.nwb")
    return folder


def test_a_run_goes_on_where_it_was(folder: Path) -> None:
    session = open_session(folder / "s.nwb")
    _, held_out = split_trials(12, 0)
    first = _run(folder, "--session=s.nwb", "--trials=1")
    assert first.returncode == 0, first.stderr
    assert read_ceiling(folder / "oracle.json").trials == (held_out[0],)
    before = json.loads((folder / "oracle.json").read_text())["estimates"]
    second = _run(folder, "--session=s.nwb")
    assert second.returncode == 0, second.stderr
    ceiling = read_ceiling(folder / "oracle.json", digest=session_digest(session))
    assert ceiling.trials == tuple(held_out)
    assert f"{ceiling.r2_causal:.4f}" in second.stdout
    after = json.loads((folder / "oracle.json").read_text())["estimates"]
    assert after[str(held_out[0])] == before[str(held_out[0])]


def test_bad_input_is_one_line(folder: Path) -> None:
    done = _run(folder, "--session=unknown.nwb", "--output=bad.json")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: unknown.nwb: not a simulated session")
    assert not (folder / "bad.json").exists()
