"""Whole dandisets, through the archive's own client: what is asked for, and what is refused."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.errors import InputError
from training.archive.dandi_download import DownloadConfig, download
from training.archive.stand_in import Fault, StandIn, stand_in
from training.archive.verified_file import Retries

# Written out once more: a pin that moves by accident would train on another recording.
PINNED = {
    "000127": "0.220113.0359",
    "000128": "0.220113.0400",
    "000129": "0.241017.1444",
    "000138": "0.220113.0407",
    "000139": "0.220113.0408",
    "000140": "0.220113.0408",
}
TRAIN = "sub-Jenkins/sub-Jenkins_ses-small_desc-train_behavior+ecephys.nwb"
TEST = "sub-Jenkins/sub-Jenkins_ses-small_desc-test_ecephys.nwb"


def _files(dandiset: str, version: str) -> dict[str, bytes]:
    return {path: f"{dandiset} {version} {path}".encode() for path in (TRAIN, TEST)}


@pytest.fixture(scope="module")
def archive() -> Iterator[StandIn]:
    pinned = {pin: _files(*pin) for pin in PINNED.items()}
    newer = {(dandiset, "9.0.0"): {"newer.nwb": b"not this"} for dandiset in PINNED}
    with stand_in({**pinned, **newer}) as held:
        yield held


@pytest.fixture(autouse=True)
def _clean(archive: StandIn) -> None:
    archive.faults.clear()
    archive.requests.clear()
    archive.metadata.clear()
    archive.page_size = 100


def _config(archive: StandIn, output: Path, dandiset: str = "000140") -> DownloadConfig:
    return DownloadConfig(
        dandiset=dandiset,
        output=output,
        archive=archive.url,
        retries=Retries(attempts=2, first_wait_s=0.0),
    )


@pytest.mark.parametrize(("dandiset", "version"), PINNED.items())
def test_the_pinned_version_comes(
    archive: StandIn, tmp_path: Path, dandiset: str, version: str
) -> None:
    files = download(_config(archive, tmp_path, dandiset))
    assert {r.path for r in archive.asked("list")} == {
        f"/api/dandisets/{dandiset}/versions/{version}/assets/"
    }
    folder = tmp_path / dandiset
    assert [file.path for file in files] == [folder / TEST, folder / TRAIN]
    assert all(file.fetched for file in files)
    for path, content in _files(dandiset, version).items():
        assert (folder / path).read_bytes() == content
    again = download(_config(archive, tmp_path, dandiset))
    assert not any(file.fetched for file in again)
    assert len(archive.asked("bytes")) == len(files)


@pytest.mark.parametrize(
    ("split", "pattern", "expected"),
    [
        ("train", "*", [TRAIN]),
        ("test", "*", [TEST]),
        ("all", "*train*", [TRAIN]),
        ("all", "sub-Jenkins/*", [TEST, TRAIN]),
        ("all", TEST.rpartition("/")[2], [TEST]),
    ],
)
def test_only_what_is_wanted_comes(
    archive: StandIn, tmp_path: Path, split: str, pattern: str, expected: list[str]
) -> None:
    config = DownloadConfig(
        dandiset="000140", output=tmp_path, split=split, pattern=pattern, archive=archive.url
    )
    files = download(config)
    assert [file.path for file in files] == [tmp_path / "000140" / path for path in expected]
    assert [request.path for request in archive.asked("bytes")] == expected


@pytest.mark.parametrize(
    ("split", "pattern", "message"),
    [
        ("val", "*", "split is 'val', expected one of all, train, test"),
        ("train", "*test*", "no asset matches split train and '*test*', there is sub-Jenkins/"),
    ],
)
def test_nothing_wanted_is_refused(
    archive: StandIn, tmp_path: Path, split: str, pattern: str, message: str
) -> None:
    config = DownloadConfig(
        dandiset="000140", output=tmp_path, split=split, pattern=pattern, archive=archive.url
    )
    with pytest.raises(InputError) as said:
        download(config)
    assert str(said.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_list_may_have_pages(archive: StandIn, tmp_path: Path) -> None:
    archive.page_size = 1
    assert len(download(_config(archive, tmp_path))) == 2
    assert len(archive.asked("list")) == 2


def test_progress_only_goes_up_and_ends_with_the_size(archive: StandIn, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    archive.faults["bytes"].append(Fault(cut_after=5))

    def on_progress(path: str, done: int, size: int) -> None:
        seen.setdefault(path, []).append((done, size))

    download(_config(archive, tmp_path), on_progress)
    for path, content in _files("000140", PINNED["000140"]).items():
        done = [each for each, _ in seen[path]]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, len(content))
        assert {size for _, size in seen[path]} == {len(content)}


def test_a_list_that_fails_once_is_asked_for_again(archive: StandIn, tmp_path: Path) -> None:
    archive.faults["list"].append(Fault(status=503))
    assert len(download(_config(archive, tmp_path))) == 2


@pytest.mark.parametrize(
    ("dandiset", "message"),
    [
        ("000999", "dandiset '000999' is unknown, expected one of 000127 (Area2_Bump), "),
        ("", "dandiset '' is unknown"),
    ],
)
def test_an_unknown_dandiset_is_refused(
    archive: StandIn, tmp_path: Path, dandiset: str, message: str
) -> None:
    with pytest.raises(InputError) as said:
        download(_config(archive, tmp_path, dandiset))
    assert str(said.value).startswith(message)
    assert archive.requests == []


def test_a_dandiset_that_the_archive_lacks_is_named(tmp_path: Path) -> None:
    with (
        stand_in({}) as empty,
        pytest.raises(InputError, match=r"dandiset 000140 version 0\.220113\.0408 is not in archi"),
    ):
        download(_config(empty, tmp_path))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        *(("list", body) for body in (b"<html>hello</html>", b"[]", b"{}", b"", b"3")),
        ("list", b'{"next": null, "results": [7]}'),
        ("list", b'{"next": null, "results": [{"path": "a.nwb"}]}'),
        *(("metadata", body) for body in (b"<html>hello</html>", b"[]", b"", b"3")),
    ],
)
def test_an_answer_of_another_kind_is_named(
    archive: StandIn, tmp_path: Path, kind: str, body: bytes
) -> None:
    archive.faults[kind].append(Fault(body=body))
    with pytest.raises(InputError, match="answers with something else than a list") as said:
        download(_config(archive, tmp_path))
    assert str(said.value).startswith("dandiset 000140 version 0.220113.0408: archive http://")
    assert "\n" not in str(said.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "digest", [None, {}, {"dandi:dandi-etag": "1-1"}, {"dandi:sha2-256": "short"}]
)
def test_a_file_that_cannot_be_verified_is_refused(
    archive: StandIn, tmp_path: Path, digest: object
) -> None:
    archive.metadata[TRAIN] = {"digest": digest}
    with pytest.raises(InputError, match=r"train.* has no SHA-256, expected one to verify by"):
        download(_config(archive, tmp_path))
    assert archive.asked("bytes") == []


@pytest.mark.parametrize("path", ["../escaped.nwb", "/tmp/escaped.nwb", "a/../../b.nwb", "."])
def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with (
        stand_in({("000140", PINNED["000140"]): {path: b"x"}}) as hostile,
        pytest.raises(InputError, match="lies outside of it"),
    ):
        download(_config(hostile, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [500, 503])
def test_an_archive_that_fails_is_named(archive: StandIn, tmp_path: Path, status: int) -> None:
    archive.faults["info"].append(Fault(status=status))
    with pytest.raises(InputError, match=f"fails: HTTP status {status}"):
        download(_config(archive, tmp_path))


@pytest.mark.parametrize("kind", ["list", "metadata"])
def test_a_list_that_keeps_failing_is_given_up(
    archive: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("dandi.dandiapi.REQUEST_RETRIES", 1)
    archive.faults[kind].append(Fault(status=503))
    with pytest.raises(InputError, match=r"^dandiset 000140 .* fails to list it: 503") as said:
        download(_config(archive, tmp_path))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/api", "no address", "ftp://x", "http://"])
def test_an_archive_that_is_not_there_is_named(tmp_path: Path, url: str) -> None:
    with socket.socket() as closed:
        # Bound and not listening: nobody answers there, and nobody else takes it.
        closed.bind(("127.0.0.1", 0))
        address = url.format(port=closed.getsockname()[1])
        config = DownloadConfig(dandiset="000140", output=tmp_path, archive=address)
        with pytest.raises(InputError, match=f"^archive {address} cannot be reached: ") as said:
            download(config)
    assert "\n" not in str(said.value)
    assert list(tmp_path.iterdir()) == []
