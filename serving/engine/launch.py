"""A batch on its way through the model, and the queue that it comes from."""

from typing import NamedTuple, Protocol

from serving.engine.errors import ModelError
from serving.engine.jobs import Kind
from serving.engine.model import Model, Pending, Velocity


class Timing(NamedTuple):
    """When a batch had the model to itself, on the engine's clock, in seconds."""

    began: float
    ended: float


class Launch(Protocol):
    """A batch in the model.

    Attributes:
        kind: what it is made of.
        events: events of its fullest row.
        since: when the oldest of its requests was submitted, as far as is known.
        at: when it was launched.
        pending: its velocities.
    """

    kind: Kind
    events: int
    since: float
    at: float
    pending: Pending

    @property
    def rows(self) -> int:
        """Windows or steps in it."""

    def land(self, velocity_B2: Velocity, timing: Timing) -> None:
        """Answers its requests."""

    def fail(self, error: ModelError) -> None:
        """Fails its requests."""


class Filling(NamedTuple):
    """A batch as it would be launched now: its rows, its fullest row, its longest wait's start."""

    rows: int
    events: int
    since: float


class Lane(Protocol):
    """The requests of one kind that wait, and how they are run."""

    def __len__(self) -> int:
        """Rows waiting."""

    def serve(self, model: Model) -> None:
        """Runs what is launched from now on with a model. Nothing is in flight."""

    def sweep(self, now: float) -> None:
        """Answers what is not to be computed: what has expired, above all."""

    def expiry(self) -> float:
        """The earliest deadline of all that wait; infinite when nothing does."""

    def urgency(self) -> float | None:
        """The earliest deadline of what could be launched, or None when nothing could."""

    def filling(self) -> Filling:
        """What could be launched, when something could."""

    def launch(self, now: float, most: int) -> Launch | None:
        """Launches the most urgent rows, so many at most; None when none is left to compute."""
