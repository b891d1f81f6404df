"""Downloads a dandiset: pinned, resumable, verified."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from training.archive.assets import list_assets, select_assets
from training.archive.dandi_client import PUBLIC_ARCHIVE, open_archive
from training.archive.dandisets import find_dandiset
from training.archive.verified_file import OnProgress, Retries, fetch_verified


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """What to download, and from where.

    Attributes:
        dandiset: its number, one of `dandisets.DANDISETS`.
        output: the folder; files go to OUTPUT/DANDISET/PATH, as the dandi client puts them.
        split: "train", "test" or "all".
        pattern: a glob that an asset's path or name must match.
        archive: the address of the archive's API.
        retries: what to do about lost connections.
    """

    dandiset: str
    output: Path
    split: str = "all"
    pattern: str = "*"
    archive: str = PUBLIC_ARCHIVE
    retries: Retries = field(default_factory=Retries)


@dataclass(frozen=True, kw_only=True)
class DownloadedFile:
    """A file that is here and has the archive's checksum.

    Attributes:
        path: where it is.
        size: bytes.
        fetched: False when it was here before.
    """

    path: Path
    size: int
    fetched: bool


def _silent(path: str, done: int, size: int) -> None:
    del path, done, size


def download(
    config: DownloadConfig, on_progress: Callable[[str, int, int], None] = _silent
) -> list[DownloadedFile]:
    """Brings a dandiset's files to disk.

    Args:
        config: what to download.
        on_progress: is given an asset's path, how many of its bytes are here, and its size.

    Raises:
        InputError: the dandiset, split or pattern names nothing, the archive cannot be reached or
            fails, a file stays corrupted, or the folder cannot be written.
    """
    dandiset = find_dandiset(config.dandiset)
    report: OnProgress = on_progress
    files = []
    with open_archive(config.archive) as client:
        assets = list_assets(client, dandiset)
        for asset in select_assets(assets, split=config.split, pattern=config.pattern):
            path = config.output / dandiset.identifier / asset.path
            fetched = fetch_verified(asset, path, config.retries, report)
            files.append(DownloadedFile(path=path, size=asset.size, fetched=fetched))
    return files
