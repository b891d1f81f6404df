"""A recording session on the time grid: spikes, behaviour and trials."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.time_grid import TimeGrid

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """Hand velocity where it was recorded; bins without a label are simply absent.

    Attributes:
        time_bin: (T,) bin of each label, ascending, without repeats.
        velocity: (T, 2) x and y velocity, the mean over the bin, in `unit`.
        unit: the velocity's unit, such as "mm/s".
    """

    time_bin: IntArray
    velocity: FloatArray
    unit: str


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Trials as half-open spans of bins.

    Attributes:
        start_bin: (n,) first bin of each trial.
        stop_bin: (n,) one past the last bin of each trial.
    """

    start_bin: IntArray
    stop_bin: IntArray

    def __len__(self) -> int:
        """Trials in all."""
        return len(self.start_bin)


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
