"""Brings one asset to disk: resumed where it stopped, and under its name only once verified."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests

from cortex.errors import InputError
from training.archive.assets import Asset
from training.archive.dandi_client import reason

# Given an asset's path, the bytes that are here, and its size.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Retries:
    """What to do about lost connections.

    Attributes:
        attempts: connections in a row that may bring nothing.
        first_wait_s: seconds before the first retry; doubled before each next one.
    """

    attempts: int = 6
    first_wait_s: float = 1.0


def fetch_verified(asset: Asset, path: Path, retries: Retries, on_progress: OnProgress) -> bool:
    """Makes `path` hold the asset; False when it already did.

    An unfinished download is kept beside it as PATH.partial and continued by the next call. Bytes
    that fail the checksum are fetched once more, from the start.

    Raises:
        InputError: the archive fails, the checksum differs twice, the disk is full or cannot be
            written, or another process is downloading the same file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        if path.is_file() and _sha256(path) == asset.sha256:
            on_progress(asset.path, asset.size, asset.size)
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            _lock(file, path)
            _check_space(asset, partial)
            found = ""
            for _ in range(2):
                _append(asset, file, retries, on_progress)
                found = _sha256(partial)
                if found == asset.sha256:
                    # The name promises the bytes, even after a power cut.
                    os.fsync(file.fileno())
                    partial.replace(path)
                    return True
                file.truncate(0)
            partial.unlink()
    except OSError as error:
        # A failed request is one too, and words itself.
        raise InputError(f"{path}: cannot be written: {reason(error)}") from error
    raise InputError(
        f"{asset.path}: SHA-256 is {found}, expected {asset.sha256}: corrupted twice on its way"
    )


def _append(asset: Asset, file: BinaryIO, retries: Retries, on_progress: OnProgress) -> None:
    """Fetches what the partial file lacks."""
    if file.tell() > asset.size:
        file.truncate(0)
    fruitless = 0
    have = file.seek(0, 2)
    on_progress(asset.path, have, asset.size)
    while have < asset.size:
        before, failure = have, "the connection ended early"
        try:
            for block in asset.fetch(have):
                file.write(block)
                # A process that is killed here leaves what it has reported.
                file.flush()
                have += len(block)
                on_progress(asset.path, have, asset.size)
        except requests.RequestException as error:
            failure = reason(error)
            status = error.response.status_code if error.response is not None else 0
            if 400 <= status < 500 and status != 429:
                raise InputError(f"{asset.path}: the archive refuses it: {failure}") from error
        if have >= asset.size:
            break
        fruitless = 0 if have > before else fruitless + 1
        if fruitless >= retries.attempts:
            raise InputError(
                f"{asset.path}: stopped at {have} of {asset.size} bytes: {failure}; "
                "run again to continue"
            )
        time.sleep(retries.first_wait_s * 2**fruitless)


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{path}: another process is downloading it") from error


def _check_space(asset: Asset, partial: Path) -> None:
    needed = asset.size - partial.stat().st_size
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise InputError(
            f"{partial.parent}: {free / 1e6:.0f} MB free, expected {needed / 1e6:.0f} MB "
            f"for {asset.path}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
