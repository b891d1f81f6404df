"""What the engine is asked to do, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cortex.events import Events
from serving.engine.stream import Stream


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One decoded velocity.

    Attributes:
        velocity: (x, y), in the model's velocity unit.
        context_steps: steps that it rests on.
        filled: missing steps of the stream that were run empty before it.
        queue_s: seconds from submission to the start of its batch.
        compute_s: seconds that its batch took.
        batch_size: requests in its batch.
        late: it was ready only after its deadline.
    """

    velocity: tuple[float, float]
    context_steps: int
    filled: int
    queue_s: float
    compute_s: float
    batch_size: int
    late: bool


DecodeStream: TypeAlias = Stream[Answer]
Outcome: TypeAlias = Answer | DecodeStream | Exception | None


@dataclass(eq=False, kw_only=True)
class Job:
    """A request on its way through the engine.

    Attributes:
        submitted: when it was submitted, on the engine's clock, in seconds.
        deadline: when its answer stops being of use, on the same clock.
        on_done: called once, on the host's side, with the outcome.
        abandoned: its client has left; nobody waits for the outcome.
    """

    submitted: float
    deadline: float
    on_done: Callable[[Outcome], None]
    abandoned: bool = False

    def abandon(self) -> None:
        """Says that nobody waits any more. The model is spared the work if it has not begun."""
        self.abandoned = True


@dataclass(eq=False, kw_only=True)
class DecodeJob(Job):
    """Decode one whole window."""

    events: Events


@dataclass(eq=False, kw_only=True)
class StepJob(Job):
    """Advance one stream to `step` and decode it. `filled` counts empty steps run on the way."""

    stream: DecodeStream
    step: int
    events: Events
    filled: int = 0


@dataclass(eq=False, kw_only=True)
class OpenJob(Job):
    """Open a stream."""


@dataclass(eq=False, kw_only=True)
class CloseJob(Job):
    """Close a stream."""

    stream: DecodeStream


TimedJob: TypeAlias = DecodeJob | StepJob
