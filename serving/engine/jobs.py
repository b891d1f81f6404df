"""What the engine is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeAlias

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
class TimedJob(Job):
    """A request whose answer is of use up to a time.

    Attributes:
        kind: what its batches are made of.
        submitted: when it was submitted, on the engine's clock, in seconds.
        deadline: when its answer stops being of use, on the same clock.
        rows: windows or steps in it.
        widest: events of the fullest of them.
    """

    kind: ClassVar[Kind]
    submitted: float
    deadline: float
    rows: int
    widest: int


@dataclass(eq=False, slots=True, kw_only=True)
class WindowJob(TimedJob):
    """Decode one whole window. Its outcome is an Answer.

    Attributes:
        events: the window's events.
    """

    kind: ClassVar[Kind] = Kind.WINDOW
    events: Events

    @classmethod
    def at(
        cls, now: float, events: Events, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> "WindowJob":
        """A window submitted now, whose answer is of use for so many seconds."""
        return cls(
            on_done=on_done,
            submitted=now,
            deadline=now + deadline_s,
            rows=1,
            widest=len(events.unit),
            events=events,
        )


@dataclass(eq=False, slots=True, kw_only=True)
class FramesJob(TimedJob):
    """Advance N streams by a step each. Its outcome is a FramesAnswer; each row fares alone.

    Attributes:
        stream_N: the streams. Steps of a stream that is named twice are run in order.
        step_N: the number of each stream's step.
        events: the events of each step.
    """

    kind: ClassVar[Kind] = Kind.STEP
    stream_N: IntArray
    step_N: IntArray
    events: RaggedEvents

    @classmethod
    def at(
        cls,
        now: float,
        stream_N: IntArray,
        step_N: IntArray,
        events: RaggedEvents,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> "FramesJob":
        """Steps submitted now, whose answers are of use for so many seconds."""
        return cls(
            on_done=on_done,
            submitted=now,
            deadline=now + deadline_s,
            rows=len(stream_N),
            widest=events.widest,
            stream_N=stream_N,
            step_N=step_N,
            events=events,
        )


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
