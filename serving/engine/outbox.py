"""What the model's side has to say to the host's."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.engine.jobs import Job, Kind, Outcome
from serving.engine.model import IntArray, Velocity
from serving.engine.stream_table import StreamCounts


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """One batch that ended: its kind, how many windows or steps, and how many seconds it took."""

    kind: Kind
    size: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Velocities of B streams, each stream's newest.

    Attributes:
        stream_B: the streams, each once.
        velocity_B2: in the model's velocity unit.
        submitted_B: when their steps were submitted, in seconds.
    """

    stream_B: IntArray
    velocity_B2: Velocity
    submitted_B: npt.NDArray[np.float64]


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
