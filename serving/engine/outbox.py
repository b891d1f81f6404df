"""What the model's side has to say to the host's."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.engine.jobs import Job, Kind, Outcome
from serving.engine.model import IntArray, Velocity
from serving.engine.records import Records
from serving.engine.stream_table import StreamCounts


class BatchReport(NamedTuple):
    """One batch that ended: its kind, how many windows or steps, and how many seconds it took."""

    kind: Kind
    size: int
    seconds: float


class Decoded(NamedTuple):
    """Velocities of B streams, each stream's newest.

    Attributes:
        stream_B: the streams, each once.
        place_B: their places; see StreamTable.
        submitted_B: when their steps were submitted, in seconds.
        velocity_B2: in the model's velocity unit.
    """

    stream_B: IntArray
    place_B: IntArray
    submitted_B: npt.NDArray[np.float64]
    velocity_B2: Velocity

    @classmethod
    def of(cls, records: Records, velocity_B2: Velocity) -> "Decoded":
        """The velocities that steps, of WAITING, were answered."""
        return cls(records["stream"], records["place"], records["submitted"], velocity_B2)


@dataclass(kw_only=True)
class Outbox:
    """What has come to be since it was last emptied.

    Attributes:
        outcomes: jobs that are settled.
        reports: batches that ended.
        decoded: steps of streams that were decoded.
        counts: what happened to streams.
    """

    outcomes: list[tuple[Job, Outcome]] = field(default_factory=list)
    reports: list[BatchReport] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    counts: StreamCounts = field(default_factory=StreamCounts)

    def emptied(self) -> "Outbox":
        """All that is in it, taken out."""
        taken = Outbox(**vars(self))
        self.outcomes, self.reports, self.decoded = [], [], []
        self.counts = StreamCounts()
        return taken
