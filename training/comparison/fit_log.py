"""Finished fits on disk, so that none is ever done twice.

Every line of `fits.jsonl` is one fit. Files beside it that are called `fits*.jsonl`, such as those
of another machine, are read too. A fit is known by its data, trials and settings: after a change of
the code that fits, begin a new folder.
"""

import json
from pathlib import Path

from cortex.errors import InputError
from training.comparison.outcome import Outcome


class FitLog:
    """The fits of one folder, by key."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there.

        Raises:
            InputError: a line is not a fit, or the folder cannot be used.
        """
        self._path = folder / "fits.jsonl"
        self._outcomes: dict[str, Outcome] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(self._path)
            for path in sorted(folder.glob("fits*.jsonl")):
                self._read(path)
        except OSError as error:
            raise InputError(f"{folder}: cannot be used: {error.strerror}") from error

    def __contains__(self, key: str) -> bool:
        """Whether a fit is finished."""
        return key in self._outcomes

    def __getitem__(self, key: str) -> Outcome:
        """A finished fit."""
        return self._outcomes[key]

    def add(self, outcome: Outcome) -> None:
        """Keeps a finished fit."""
        with self._path.open("a") as file:
            file.write(json.dumps(outcome.to_json()) + "\n")
        self._outcomes[outcome.key] = outcome

    def _read(self, path: Path) -> None:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                outcome = Outcome.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}: line {number} is not a finished fit ({type(error).__name__}: {error})"
                ) from error
            self._outcomes[outcome.key] = outcome


def _drop_torn_line(path: Path) -> None:
    """What a run that was killed while it wrote left of its last line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
