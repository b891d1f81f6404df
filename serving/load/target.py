"""What a load is put on."""

from collections.abc import Callable
from typing import Protocol

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.jobs import Outcome
from serving.engine.model import IntArray


class Submits(Protocol):
    """The part of serving.engine.engine.Engine that takes requests."""

    def submit_window(
        self, events: Events, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> object:
        """As of Engine."""

    def submit_frames(
        self,
        stream_N: IntArray,
        step_N: IntArray,
        events: RaggedEvents,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> object:
        """As of Engine."""

    def submit_open(self, on_done: Callable[[Outcome], None], count: int = 1) -> object:
        """As of Engine."""

    def submit_close(self, stream: int, on_done: Callable[[Outcome], None]) -> object:
        """As of Engine."""


class Target(Protocol):
    """An engine, and the time."""

    @property
    def engine(self) -> Submits:
        """Where requests go."""

    def clock(self) -> float:
        """Seconds, monotonic."""

    def wait(self, until: float) -> None:
        """Returns at a time, or when outcomes have come, which it has handed out."""
