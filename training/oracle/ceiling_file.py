"""Writes a ceiling trial by trial, so that a killed run goes on where it was."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from cortex.errors import InputError
from cortex.session import FloatArray
from training.evaluation.intervals import bootstrap_r2
from training.evaluation.metrics import velocity_r2
from training.oracle.estimate import Estimate

KINDS = ("causal", "smoothed")


class CeilingFile:
    """The JSON file that `ceiling.read_ceiling` reads, with each trial's estimates besides."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Takes up what the file holds, if it is there.

        Args:
            path: the file.
            identity: what the ceiling is of: session_id, digest, and settings that it depends on.

        Raises:
            InputError: the file holds something else.
        """
        self._path, self._identity = path, identity
        self._estimates: dict[str, dict[str, list[list[float]]]] = {}
        if not path.parent.is_dir():
            raise InputError(f"{path}: cannot be written: no such directory as {path.parent}")
        if not path.exists():
            return
        try:
            held = json.loads(path.read_text())
            same = {name: held[name] for name in identity} == identity
            self._estimates = held["estimates"]
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise InputError(
                f"{path}: is not a ceiling of this session with these settings; give the same "
                "session and flags to go on, or another file to begin anew"
            )

    def __contains__(self, trial: int) -> bool:
        """Whether a trial is scored."""
        return str(trial) in self._estimates

    def add(self, trial: int, true: FloatArray, estimate: Estimate) -> dict[str, Any]:
        """Adds a trial and writes the file.

        Returns:
            The fields written, estimates left out.

        Raises:
            InputError: the file cannot be written.
        """
        columns = {"true": true, "causal": estimate.causal, "smoothed": estimate.smoothed}
        self._estimates[str(trial)] = {
            # To a micrometre a second.
            name: values.astype(np.float64).round(3).tolist()
            for name, values in columns.items()
        }
        fields = {**self._identity, **self._scores()}
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            partial.write_text(json.dumps({**fields, "estimates": self._estimates}) + "\n")
            partial.replace(self._path)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from error
        return fields

    def _scores(self) -> dict[str, Any]:
        columns = {
            name: [np.reshape(each[name], (-1, 2)) for each in self._estimates.values()]
            for name in ("true", *KINDS)
        }
        true = np.concatenate(columns["true"])
        scores: dict[str, Any] = {
            "trials": [int(trial) for trial in self._estimates],
            "points": len(true),
        }
        for kind in KINDS:
            scores[f"r2_{kind}"] = velocity_r2(true, np.concatenate(columns[kind]))
            interval = bootstrap_r2(columns["true"], columns[kind])
            # A single trial has no interval, and JSON has no nan.
            scores[f"r2_{kind}_interval"] = None if math.isnan(interval[0]) else list(interval)
        return scores
