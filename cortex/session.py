"""A recording session on the time grid: spikes, behaviour and trials."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.time_grid import TimeGrid

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """Hand velocity where it was recorded; bins without a label are simply absent.

    Attributes:
        time_bin: (T,) bin of each label, ascending, without repeats.
        velocity: (T, 2) x and y velocity, the mean over the bin, in `unit`.
        unit: the velocity's unit, such as "mm/s".
        series: what the file calls the velocity, such as "hand_vel"; empty where it has none.
    """

    time_bin: IntArray
    velocity: FloatArray
    unit: str
    series: str = ""

    @classmethod
    def empty(cls, unit: str) -> "Behavior":
        """No labels, as in a file that holds behaviour back."""
        return cls(time_bin=np.empty(0, np.int64), velocity=np.empty((0, 2), np.float32), unit=unit)

    def at(self, bins: IntArray) -> tuple[FloatArray, BoolArray]:
        """The labels of any bins.

        Args:
            bins: (...) bins of the session, in any order.

        Returns:
            velocity: (..., 2), 0 where there is no label.
            labelled: (...) True where there is one.
        """
        velocity = np.zeros((*bins.shape, 2), np.float32)
        row = np.searchsorted(self.time_bin, bins)
        labelled = row < len(self.time_bin)
        labelled[labelled] = self.time_bin[row[labelled]] == bins[labelled]
        velocity[labelled] = self.velocity[row[labelled]]
        return velocity, labelled


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Trials as half-open spans of bins, with what happened in them.

    Attributes:
        start_bin: (n,) first bin of each trial.
        stop_bin: (n,) one past the last bin of each trial.
        event_bins: by name, such as "move_onset", the bin (n,) of that event in each trial; -1
            where it did not happen.
        split: each trial's split ("train", "val", "test" or "none"); left out, "none" for all.
    """

    start_bin: IntArray
    stop_bin: IntArray
    event_bins: Mapping[str, IntArray] = field(default_factory=dict)
    split: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError on columns that differ in length."""
        if not self.split:
            object.__setattr__(self, "split", ("none",) * len(self.start_bin))
        columns: dict[str, Sized] = {
            "stop_bin": self.stop_bin,
            "split": self.split,
            **self.event_bins,
        }
        for name, column in columns.items():
            if len(column) != len(self.start_bin):
                raise InputError(
                    f"trials: {name} has {len(column)} entries, expected {len(self.start_bin)}"
                )

    def __len__(self) -> int:
        """Trials in all."""
        return len(self.start_bin)

    def in_split(self, *names: str) -> IntArray:
        """Indices of the trials whose split is one of those named."""
        return np.flatnonzero(np.isin(np.array(self.split, np.str_), names)).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One recording.

    Attributes:
        session_id: name of the recording.
        subject: name of the subject.
        unit_ids: one name a unit, unique; events.unit indexes this.
        grid: the time grid that every bin below is counted on.
        events: spikes.
        behavior: velocity labels.
        trials: trial spans.
    """

    session_id: str
    subject: str
    unit_ids: tuple[str, ...]
    grid: TimeGrid
    events: Events
    behavior: Behavior
    trials: Trials

    def __post_init__(self) -> None:
        """Raises InputError on what no decoder could be trained from."""
        where = f"session {self.session_id!r}"
        if not self.unit_ids:
            raise InputError(f"{where}: no units, expected at least one")
        if len(set(self.unit_ids)) != len(self.unit_ids):
            raise InputError(f"{where}: unit ids repeat, expected unique ones")
        if not len(self.trials):
            raise InputError(f"{where}: no trials, expected at least one")
        bad = np.flatnonzero(~np.isfinite(self.behavior.velocity).all(axis=1))
        if len(bad):
            raise InputError(
                f"{where}: velocity at bin {self.behavior.time_bin[bad[0]]} is not finite "
                f"({len(bad)} of {len(self.behavior.velocity)} labels), expected numbers"
            )
        empty = np.flatnonzero(self.trials.stop_bin <= self.trials.start_bin)
        if len(empty):
            raise InputError(f"{where}: trial {empty[0]} ends before it starts")

    def require_behavior(self) -> None:
        """Raises InputError if nothing can be learnt from, or scored on, the session."""
        if not len(self.behavior.time_bin):
            raise InputError(
                f"session {self.session_id!r} has no behaviour, expected velocity to learn from "
                "or to score on; a file without it can only be decoded"
            )

    def event_bin(self, name: str) -> IntArray:
        """Bin (n,) of an event in each trial, -1 where it did not happen.

        Raises:
            InputError: the recording does not say when the event happened.
        """
        if name not in self.trials.event_bins:
            known = ", ".join(self.trials.event_bins) or "no event"
            raise InputError(
                f"session {self.session_id!r}: trials have no {name!r}, expected one of: {known}"
            )
        return self.trials.event_bins[name]
