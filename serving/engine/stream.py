"""A stream: its slot in the model, and the order in which its steps may come."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cortex.errors import InputError

AnswerT = TypeVar("AnswerT")


class StreamOrder(Generic[AnswerT]):
    """Which step comes next, and what to do with one that does not.

    Attributes:
        next_step: the step that the model's state expects.
        behind: steps refused because the stream had moved past them.
    """

    def __init__(self, window_steps: int) -> None:
        """Begins at step 0.

        Args:
            window_steps: the longest gap that is filled with silence, in steps.
        """
        self._window_steps = window_steps
        self._last: tuple[int, AnswerT] | None = None
        self.next_step = 0
        self.behind = 0

    def repeat(self, step: int) -> AnswerT | None:
        """The answer given before, if `step` is the one answered last."""
        if self._last is not None and self._last[0] == step and step == self.next_step - 1:
            return self._last[1]
        return None

    def missing(self, step: int) -> int:
        """Steps to run empty before `step`: 0 when it is the next.

        Raises:
            InputError: the stream has moved past the step, or the gap is longer than a window.
        """
        ahead = step - self.next_step
        if ahead < 0:
            self.behind += 1
            raise InputError(
                f"step {step} is behind the stream, expected {self.next_step} or later"
            )
        if ahead > self._window_steps:
            raise InputError(
                f"step {step} is {ahead} ahead of the stream, at most {self._window_steps} "
                "can be filled: open a new stream"
            )
        return ahead

    def advance(self) -> None:
        """The model has taken one step."""
        self.next_step += 1

    def answered(self, step: int, answer: AnswerT) -> None:
        """Keeps the answer to the step just taken, for a client that asks again."""
        self._last = (step, answer)


@dataclass(eq=False, kw_only=True)
class Stream(Generic[AnswerT]):
    """One open stream. The model thread alone changes it.

    Attributes:
        slot: its place in the model.
        order: the order of its steps.
        closed: its slot has been given back.
        broken: the model failed in a step of it, so its state is not to be trusted.
    """

    slot: int
    order: StreamOrder[AnswerT]
    closed: bool = field(default=False)
    broken: bool = field(default=False)
