"""What the engine answers: one velocity, or those of many steps as columns."""

from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np

from cortex.errors import InputError
from serving.engine.errors import EngineError
from serving.engine.records import Records

# A record is one step's answer. See FramesAnswer for the fields.
ANSWER = np.dtype(
    [
        ("velocity", np.float32, 2),
        ("context_steps", np.int32),
        ("filled", np.int32),
        ("status", np.int16),
        ("flags", np.uint8),
        ("model", np.int32),
        ("queue_s", np.float32),
        ("compute_s", np.float32),
        ("batch_size", np.int32),
    ]
)
ANSWERED = 200


class Flag(IntFlag):
    """What is to be known of an answer.

    DUPLICATE: the step had been answered; this is that answer again.
    RESTARTED: the stream's state had been lost, and begins with this step.
    LATE: it was ready only after its deadline.
    """

    DUPLICATE = 1
    RESTARTED = 2
    LATE = 4


class Answer(NamedTuple):
    """One decoded velocity.

    Attributes:
        velocity: (x, y), in the model's velocity unit.
        context_steps: steps that it rests on.
        filled: missing steps of the stream that were run empty before it.
        flags: see Flag.
        digest: of the weights that it comes from.
        queue_s: seconds from submission to the start of its batch.
        compute_s: seconds that its batch took.
        batch_size: requests in its batch.
    """

    velocity: tuple[float, float]
    context_steps: int
    filled: int
    flags: Flag
    digest: str
    queue_s: float
    compute_s: float
    batch_size: int


class FramesAnswer(NamedTuple):
    """The answers to N steps.

    Attributes:
        records: (N,) of ANSWER: fields as of Answer, `model` in place of the digest, and `status`:
            the HTTP status that says how the step fared, 200 if it was answered. The velocity of
            a step without an answer is not a number.
        errors: of each row whose status is not 200, the reason.
        digests: what `model` counts.
    """

    records: Records
    errors: dict[int, Exception]
    digests: tuple[str, ...]

    def row(self, row: int) -> Answer | Exception:
        """One step's answer, or the reason why there is none."""
        if row in self.errors:
            return self.errors[row]
        record: Any = self.records[row]
        x, y = record["velocity"].tolist()
        return Answer(
            velocity=(x, y),
            context_steps=int(record["context_steps"]),
            filled=int(record["filled"]),
            flags=Flag(int(record["flags"])),
            digest=self.digests[record["model"]],
            queue_s=float(record["queue_s"]),
            compute_s=float(record["compute_s"]),
            batch_size=int(record["batch_size"]),
        )


def status_of(error: Exception) -> int:
    """The HTTP status that says the same as an error."""
    if isinstance(error, EngineError):
        return error.status
    return 400 if isinstance(error, InputError) else 500
