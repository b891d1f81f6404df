"""What becomes of a step, by where its stream is."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.model import IntArray

BoolArray = npt.NDArray[np.bool_]


class Verdict(IntEnum):
    """What to do with a step.

    RUN: it is the stream's next.
    FILL: steps before it are missing: run one of them empty.
    DUPLICATE: it was the last to be answered.
    BEHIND: the stream has moved past it.
    AHEAD: more than a window of steps is missing before it.
    NO_SLOT: the stream's state was lost, and every slot is taken.
    UNMET: its deadline comes before the steps that are missing could be run.
    """

    RUN = 0
    FILL = 1
    DUPLICATE = 2
    BEHIND = 3
    AHEAD = 4
    NO_SLOT = 5
    UNMET = 6


class Placement(NamedTuple):
    """B steps judged.

    Attributes:
        verdict_B: a Verdict each.
        slot_B: where the stream's state is; -1 where there is none.
        restarted_B: the slot is new to the stream: reset it to begin with this step.
        ahead_B: how far each step is ahead of the one that its stream expects.
        context_B: steps that the answer to each rests on, if it is run.
    """

    verdict_B: IntArray
    slot_B: IntArray
    restarted_B: BoolArray
    ahead_B: IntArray
    context_B: IntArray

    @property
    def all_run(self) -> bool:
        """Whether every step is to be run."""
        return not np.count_nonzero(self.verdict_B)  # Verdict.RUN is 0.

    def of(self, index: IntArray) -> "Placement":
        """Some of the steps."""
        return Placement(
            self.verdict_B[index],
            self.slot_B[index],
            self.restarted_B[index],
            self.ahead_B[index],
            self.context_B[index],
        )


def refusal(verdict: Verdict, *, step: int, ahead: int, window_steps: int) -> Exception:
    """What is said of a step that is not run."""
    if verdict is Verdict.BEHIND:
        return InputError(f"step {step} is behind the stream, expected {step - ahead} or later")
    if verdict is Verdict.AHEAD:
        return InputError(
            f"step {step} is {ahead} ahead of the stream, at most {window_steps} can be "
            "filled: open a new stream"
        )
    if verdict is Verdict.UNMET:
        return InfeasibleError(
            f"step {step} is {ahead} ahead of the stream: these cannot be run by the deadline"
        )
    return BusyError("the stream's state was evicted, and every stream slot is taken")


def closed(stream: int) -> Exception:
    """What is said of a step of a stream that is not open."""
    return InputError(f"stream {stream} is closed, or was never opened")
