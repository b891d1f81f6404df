"""The download binary as a user runs it, and a decoder learnt from what it brings."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.data.nwb_writer import write_nwb
from cortex.data.open_session import open_session
from cortex.data.simulator import SimulatorConfig, simulate
from training.archive.assets import BLOCK_BYTES
from training.archive.dandisets import find_dandiset
from training.archive.stand_in import Fault, StandIn, stand_in
from training.binary_for_tests import start_binary

TRAIN = "sub-J/sub-J_ses-small_desc-train_behavior+ecephys.nwb"
TEST = "sub-J/sub-J_ses-small_desc-test_ecephys.nwb"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("archive")
    recording = simulate(SimulatorConfig(trials=6, units=8, heldout_units=2, val_share=0.3))
    write_nwb(recording, folder / "train.nwb")
    write_nwb(recording.without_answers(), folder / "test.nwb")
    files = {
        TRAIN: (folder / "train.nwb").read_bytes(),
        TEST: (folder / "test.nwb").read_bytes(),
    }
    with stand_in({("000140", find_dandiset("000140").version): files}) as held:
        yield held


@pytest.fixture(autouse=True)
def _clean(archive: StandIn) -> None:
    archive.faults.clear()
    archive.requests.clear()


def _download(folder: Path, archive_url: str, *arguments: str) -> "subprocess.Popen[str]":
    asked = ("--dandiset=000140", "--output=recordings", f"--archive={archive_url}")
    return start_binary(folder, "download", *asked, *arguments)


def test_a_downloaded_recording_is_learnt_from(archive: StandIn, tmp_path: Path) -> None:
    done = _download(tmp_path, archive.url)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"recordings/000140/{TEST}",
        f"recordings/000140/{TRAIN}",
    ]
    assert all(line.endswith("fetched, SHA-256 verified") for line in lines)
    assert "100%" in err
    train, test = (open_session(tmp_path / "recordings/000140" / path) for path in (TRAIN, TEST))
    assert len(train.behavior.time_bin)
    assert len(train.unit_ids) == 6
    assert test.unit_ids == train.unit_ids
    assert not len(test.behavior.time_bin)
    learnt = start_binary(
        tmp_path,
        "train",
        f"--session=recordings/000140/{TRAIN}",
        "--output=decoder",
        "--steps=2",
        "--batch_trials=2",
    )
    out, err = learnt.communicate(timeout=120)
    assert learnt.returncode == 0, err
    assert "held-out velocity R2" in out
    assert (tmp_path / "decoder" / "model.safetensors").is_file()


def test_a_killed_download_goes_on(archive: StandIn, tmp_path: Path) -> None:
    archive.faults["bytes"].append(Fault(stall_after=2 * BLOCK_BYTES))
    partial = tmp_path / "recordings/000140" / f"{TRAIN}.partial"
    killed = _download(tmp_path, archive.url, "--split=train")
    while not (partial.is_file() and partial.stat().st_size == 2 * BLOCK_BYTES):
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=120)
    assert not partial.with_suffix("").exists()
    done = _download(tmp_path, archive.url, "--split=train")
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert [request.start for request in archive.asked("bytes")] == [0, 2 * BLOCK_BYTES]
    assert partial.with_suffix("").read_bytes() == next(iter(archive.files.values()))[TRAIN]
    assert not partial.exists()


def test_bad_input_is_one_line(archive: StandIn, tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("no folder")
    unwritable = _download(tmp_path, archive.url, "--split=test")
    unreachable = _download(tmp_path, "http://127.0.0.1:1/api")
    for binary, message in (
        (unwritable, "test_ecephys.nwb: cannot be written: Not a directory"),
        (unreachable, "archive http://127.0.0.1:1/api cannot be reached: "),
    ):
        _, err = binary.communicate(timeout=120)
        assert binary.returncode == 2
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("error: ")
        assert message in err.splitlines()[-1]
