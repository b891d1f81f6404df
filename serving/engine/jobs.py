"""What the engine is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Answer, FramesAnswer
from serving.engine.model import IntArray, Model, ModelCard


class Kind(StrEnum):
    """What a batch is made of. Its hash is a string's: an Enum's own is computed in Python."""

    WINDOW = "window"
    STEP = "step"


Outcome: TypeAlias = Answer | FramesAnswer | IntArray | ModelCard | Exception | None


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """A request on its way through the engine.

    Attributes:
        on_done: called once, on the host's side, with the outcome.
        abandoned: its client has left; nobody waits for the outcome.
    """

    on_done: Callable[[Outcome], None]
    abandoned: bool = False

    def abandon(self) -> None:
        """Says that nobody waits any more. The model is spared the work if it has not begun."""
        self.abandoned = True


@dataclass(eq=False, slots=True, kw_only=True)
class WindowJob(Job):
    """Decode one whole window. Its outcome is an Answer.

    Attributes:
        submitted: when it was submitted, on the engine's clock, in seconds.
        deadline: when its answer stops being of use, on the same clock.
        events: the window's events.
    """

    submitted: float
    deadline: float
    events: Events

    @property
    def kind(self) -> Kind:
        """What its batches are made of."""
        return Kind.WINDOW

    @property
    def rows(self) -> int:
        """Windows in it."""
        return 1

    @property
    def widest(self) -> int:
        """Events of its window."""
        return len(self.events.unit)


@dataclass(eq=False, slots=True, kw_only=True)
class FramesJob(Job):
    """Advance N streams by a step each. Its outcome is a FramesAnswer; each row fares alone.

    Attributes:
        submitted: when it was submitted, on the engine's clock, in seconds.
        deadline: when its answers stop being of use, on the same clock.
        stream_N: the streams. Steps of a stream that is named twice are run in order.
        step_N: the number of each stream's step.
        events: the events of each step.
        widest: events of the fullest of them.
    """

    submitted: float
    deadline: float
    stream_N: IntArray
    step_N: IntArray
    events: RaggedEvents
    widest: int

    @property
    def kind(self) -> Kind:
        """What its batches are made of."""
        return Kind.STEP

    @property
    def rows(self) -> int:
        """Steps in it."""
        return len(self.stream_N)


TimedJob: TypeAlias = WindowJob | FramesJob


@dataclass(eq=False, slots=True, kw_only=True)
class OpenJob(Job):
    """Open `count` streams. Its outcome is their (count,) names."""

    count: int


@dataclass(eq=False, slots=True, kw_only=True)
class CloseJob(Job):
    """Close a stream. Its outcome is None."""

    stream: int


@dataclass(eq=False, slots=True, kw_only=True)
class SwapJob(Job):
    """Serve another model. Its outcome is the new model's card.

    Attributes:
        build: loads the model.
    """

    build: Callable[[], Model]
