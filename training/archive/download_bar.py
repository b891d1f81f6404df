"""A download's progress on the terminal."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import NoReturn

from tqdm import tqdm

from training.archive.verified_file import OnProgress


@contextmanager
def download_bar() -> Iterator[OnProgress]:
    """One bar a file, of bytes; yields what `download` takes as on_progress."""
    with ExitStack() as stack:
        bars: dict[str, tqdm[NoReturn]] = {}

        def on_progress(path: str, done: int, size: int) -> None:
            if path not in bars:
                # What an earlier run brought counts as done, not as this run's speed.
                new: tqdm[NoReturn] = tqdm(
                    desc=PurePosixPath(path).name,
                    initial=done,
                    total=size,
                    unit="B",
                    unit_scale=True,
                )
                bars[path] = stack.enter_context(new)
            bar = bars[path]
            bar.update(done - bar.n)
            if done == size:
                bar.refresh()

        yield on_progress
