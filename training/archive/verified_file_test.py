"""One file, brought over bad lines and onto bad disks, through the archive's own client."""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex.errors import InputError
from training.archive.assets import BLOCK_BYTES, Asset, list_assets
from training.archive.dandi_client import open_archive
from training.archive.dandisets import find_dandiset
from training.archive.stand_in import Fault, StandIn, stand_in
from training.archive.verified_file import Retries, fetch_verified

CONTENT = np.random.default_rng(0).bytes(5 * BLOCK_BYTES + 1234)
DANDISET = find_dandiset("000140")
AT_ONCE = Retries(attempts=3, first_wait_s=0.0)


@pytest.fixture(scope="module")
def archive() -> Iterator[StandIn]:
    with stand_in({("000140", DANDISET.version): {"sub-J/a.nwb": CONTENT}}) as held:
        yield held


@pytest.fixture(scope="module")
def asset(archive: StandIn) -> Iterator[Asset]:
    with open_archive(archive.url) as client:
        yield list_assets(client, DANDISET)[0]


@pytest.fixture(autouse=True)
def _clean(archive: StandIn) -> None:
    archive.faults.clear()
    archive.requests.clear()


class Fetch(NamedTuple):
    """A way to fetch the asset, and where it goes."""

    asset: Asset
    path: Path
    seen: list[int]

    def __call__(self, retries: Retries = AT_ONCE) -> bool:
        return fetch_verified(
            self.asset, self.path, retries, lambda path, done, size: self.seen.append(done)
        )

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")


@pytest.fixture
def fetch(asset: Asset, tmp_path: Path) -> Fetch:
    return Fetch(asset, tmp_path / "sub-J" / "a.nwb", [])


def _starts(archive: StandIn) -> list[int]:
    """Where each request for bytes began."""
    return [request.start for request in archive.asked("bytes")]


def test_a_file_comes_whole_and_only_once(archive: StandIn, fetch: Fetch) -> None:
    assert fetch()
    assert fetch.path.read_bytes() == CONTENT
    assert not fetch.partial.exists()
    assert fetch.seen == [0, *range(BLOCK_BYTES, len(CONTENT), BLOCK_BYTES), len(CONTENT)]
    fetch.seen.clear()
    assert not fetch()
    assert _starts(archive) == [0]
    assert fetch.seen == [len(CONTENT)]


def test_a_cut_download_goes_on_where_it_stopped(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].append(Fault(cut_after=2 * BLOCK_BYTES))
    archive.faults["bytes"].append(Fault(cut_after=BLOCK_BYTES))
    assert fetch()
    assert fetch.path.read_bytes() == CONTENT
    assert _starts(archive) == [0, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES]
    assert fetch.seen == sorted(fetch.seen)
    assert fetch.seen[-1] == len(CONTENT)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6))
def test_less_than_a_block_is_lost_with_a_connection(
    archive: StandIn, asset: Asset, tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    archive.faults.clear()
    archive.requests.clear()
    archive.faults["bytes"].extend(Fault(cut_after=cut) for cut in cuts)
    fetch = Fetch(asset, tmp_path_factory.mktemp("cut") / "a.nwb", [])
    assert fetch(Retries(attempts=9, first_wait_s=0.0))
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.seen == sorted(fetch.seen)
    expected = [0]
    for cut in cuts:
        left = len(CONTENT) - expected[-1]
        if cut >= left:
            break
        expected.append(expected[-1] + cut // BLOCK_BYTES * BLOCK_BYTES)
    assert _starts(archive) == expected


def test_what_an_earlier_run_brought_is_kept(archive: StandIn, fetch: Fetch) -> None:
    fetch.partial.parent.mkdir()
    fetch.partial.write_bytes(CONTENT[:777])
    assert fetch()
    assert _starts(archive) == [777]
    assert fetch.path.read_bytes() == CONTENT


def test_a_silent_connection_counts_as_lost(
    archive: StandIn, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dandi.dandiapi.DOWNLOAD_TIMEOUT", 0.2)
    archive.faults["bytes"].append(Fault(stall_after=BLOCK_BYTES))
    assert fetch()
    assert _starts(archive) == [0, BLOCK_BYTES]
    assert fetch.path.read_bytes() == CONTENT


def test_a_slow_connection_is_waited_for(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].append(Fault(pause_s=0.01))
    assert fetch()
    assert _starts(archive) == [0]
    assert fetch.path.read_bytes() == CONTENT


def test_a_busy_archive_is_asked_again(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].extend([Fault(status=503), Fault(status=429)])
    assert fetch()
    assert _starts(archive) == [0, 0, 0]
    assert fetch.path.read_bytes() == CONTENT


def test_a_dead_line_is_given_up_and_taken_up_again(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].append(Fault(cut_after=BLOCK_BYTES))
    archive.faults["bytes"].extend([Fault(status=503)] * AT_ONCE.attempts)
    with pytest.raises(InputError, match=f"stopped at {BLOCK_BYTES} of .* 503 .*run again") as said:
        fetch()
    assert "\n" not in str(said.value)
    assert not fetch.path.exists()
    assert fetch()
    assert _starts(archive)[-1] == BLOCK_BYTES
    assert fetch.path.read_bytes() == CONTENT


def test_a_refusal_is_not_asked_again(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].append(Fault(status=403))
    with pytest.raises(InputError, match=r"sub-J/a\.nwb: the archive refuses it: 403"):
        fetch()
    assert _starts(archive) == [0]


def test_bytes_that_came_wrong_are_fetched_again(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].append(Fault(flip=3 * BLOCK_BYTES))
    assert fetch()
    assert _starts(archive) == [0, 0]
    assert fetch.path.read_bytes() == CONTENT


def test_bytes_that_come_wrong_twice_are_refused(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].extend([Fault(flip=0), Fault(flip=len(CONTENT) - 1)])
    with pytest.raises(InputError, match="corrupted twice on its way") as said:
        fetch()
    assert fetch.asset.sha256 in str(said.value)
    assert _starts(archive) == [0, 0]
    assert list(fetch.path.parent.iterdir()) == []


@pytest.mark.parametrize("body", [b"<html>busy</html>", CONTENT + b"more"])
def test_a_body_of_another_length_is_not_taken(archive: StandIn, fetch: Fetch, body: bytes) -> None:
    archive.faults["bytes"].append(Fault(body=body))
    assert fetch()
    assert fetch.path.read_bytes() == CONTENT


def test_an_archive_without_ranges_starts_over(archive: StandIn, fetch: Fetch) -> None:
    archive.faults["bytes"].extend([Fault(cut_after=BLOCK_BYTES), Fault(whole=True)])
    assert fetch()
    assert _starts(archive) == [0, BLOCK_BYTES, 0]
    assert fetch.path.read_bytes() == CONTENT


def test_a_spoilt_file_of_that_name_is_replaced(archive: StandIn, fetch: Fetch) -> None:
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch()
    assert _starts(archive) == [0]
    assert fetch.path.read_bytes() == CONTENT


def test_a_full_disk_is_named(fetch: Fetch) -> None:
    fetch.partial.parent.mkdir()
    # The device that is always full.
    fetch.partial.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"a\.nwb: cannot be written: No space left") as said:
        fetch()
    assert "\n" not in str(said.value)
    assert not fetch.path.exists()


def test_a_disk_that_is_too_small_is_named_before_anything_comes(
    archive: StandIn, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=len(CONTENT) - 1))
    with pytest.raises(InputError, match="0 MB free, expected 0 MB"):
        fetch()
    assert _starts(archive) == []
    assert not fetch.path.exists()


@pytest.mark.parametrize("folder", ["file", "/proc"])
def test_a_folder_that_cannot_be_made_is_named(asset: Asset, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"sub-J/a\.nwb: cannot be written: ") as said:
        Fetch(asset, tmp_path / folder / "sub-J" / "a.nwb", [])()
    assert "\n" not in str(said.value)


def test_two_do_not_fetch_one_file(archive: StandIn, fetch: Fetch) -> None:
    fetch.partial.parent.mkdir()
    with fetch.partial.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is downloading it"):
            fetch()
    assert _starts(archive) == []
    assert fetch()
