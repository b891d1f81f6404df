"""The files of a dandiset, and which of them are wanted."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import requests
from dandi.dandiapi import DandiAPIClient
from dandi.exceptions import NotFoundError

from cortex.errors import InputError
from training.archive.dandi_client import reason
from training.archive.dandisets import Dandiset

SPLITS = ("all", "train", "test")

# What is lost of a block when its connection is: little enough to move on over a bad line.
BLOCK_BYTES = 1 << 16

# What reading an answer raises that is JSON of another shape, or no JSON.
_MISSHAPEN = (ValueError, TypeError, KeyError, AttributeError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file in the archive.

    Attributes:
        path: its path within the dandiset.
        size: bytes.
        sha256: 64 hexadecimal digits.
        fetch: given how many bytes to leave out at its start, yields the others in blocks.
    """

    path: str
    size: int
    sha256: str
    fetch: Callable[[int], Iterator[bytes]]


def list_assets(client: DandiAPIClient, dandiset: Dandiset) -> list[Asset]:
    """All files of a dandiset, by path.

    Raises:
        InputError: the archive lacks the dandiset or its version, fails, or lists a file that
            cannot be verified or stored.
    """
    label = f"dandiset {dandiset.identifier} version {dandiset.version}"
    assets = []
    try:
        remote = client.get_dandiset(dandiset.identifier, dandiset.version)
        for each in remote.get_assets(order="path"):
            metadata = each.get_raw_metadata()
            path = PurePosixPath(each.path)
            if path.is_absolute() or ".." in path.parts or not path.name:
                raise InputError(f"{label}: {each.path!r} lies outside of it")
            sha256 = str((metadata.get("digest") or {}).get("dandi:sha2-256"))
            if not re.fullmatch("[0-9a-f]{64}", sha256):
                raise InputError(f"{label}: {each.path} has no SHA-256, expected one to verify by")
            fetch = each.get_download_file_iter(BLOCK_BYTES)
            assets.append(Asset(path=str(path), size=each.size, sha256=sha256, fetch=fetch))
    except InputError:
        raise
    except NotFoundError as error:
        raise InputError(f"{label} is not in archive {client.api_url}") from error
    # Before RequestException: a body that is no JSON raises both.
    except _MISSHAPEN as error:
        raise InputError(
            f"{label}: archive {client.api_url} answers with something else than a list of files"
        ) from error
    except requests.RequestException as error:
        raise InputError(
            f"{label}: archive {client.api_url} fails to list it: {reason(error)}"
        ) from error
    return assets


def select_assets(assets: Sequence[Asset], *, split: str, pattern: str) -> list[Asset]:
    """The files of a split whose path or name matches a glob.

    Args:
        assets: what there is.
        split: "train" for the recording with behaviour, "test" for the benchmark's held-out
            spikes, or "all".
        pattern: such as "*train*"; an asterisk matches slashes too.

    Raises:
        InputError: the split is unknown, or nothing is left.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    chosen = [
        asset
        for asset in assets
        if (split == "all" or f"desc-{split}" in PurePosixPath(asset.path).name)
        and (
            fnmatchcase(asset.path, pattern) or fnmatchcase(PurePosixPath(asset.path).name, pattern)
        )
    ]
    if not chosen:
        there = ", ".join(asset.path for asset in assets) or "no file at all"
        raise InputError(f"no asset matches split {split} and {pattern!r}, there is {there}")
    return chosen
