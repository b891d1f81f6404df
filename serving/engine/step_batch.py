"""A batch of steps in the model, and what becomes of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.engine.answers import ANSWER, ANSWERED, Flag
from serving.engine.errors import ModelError
from serving.engine.faults import not_finite
from serving.engine.jobs import Kind
from serving.engine.launch import Timing
from serving.engine.model import IntArray, Pending, Velocity
from serving.engine.outbox import Decoded, Outbox
from serving.engine.records import EVERY, Index, Records, take, where
from serving.engine.step_answers import StepAnswers
from serving.engine.step_queue import StepQueue
from serving.engine.stream_table import StreamTable

_LATE = np.uint8(Flag.LATE)


@dataclass(eq=False, kw_only=True)
class StepBatch:
    """A batch of steps in the model. See Launch.

    Attributes:
        answers: where answers are put down.
        table: the streams, each of which has no other step in the model.
        queue: where steps go back to.
        outbox: where velocities go.
        records: (B,) of WAITING: first the steps that are run with their events, then those that
            one step missing before them is run empty for.
        real: how many are run with their events.
        context_B: steps that each answer rests on.
        flags_B: of each answer.
        earliest: no deadline is earlier.
        events: events of its fullest step.
        since: when the first of its steps was submitted.
        at: when it was launched.
        pending: its velocities.
    """

    answers: StepAnswers
    table: StreamTable
    queue: StepQueue
    outbox: Outbox
    records: Records
    real: int
    context_B: IntArray
    flags_B: npt.NDArray[np.uint8]
    earliest: float
    events: int
    since: float
    at: float
    pending: Pending
    kind: Kind = Kind.STEP

    @property
    def rows(self) -> int:
        """Steps in it."""
        return len(self.records)

    def land(self, velocity_B2: Velocity, timing: Timing) -> None:
        """Answers the steps that were run with their events, and puts the others back.

        A step whose velocity is not finite fails alone.
        """
        records, table = self.records, self.table
        done: Index = EVERY
        self.queue.end()
        if self.real < len(records) or not np.isfinite(velocity_B2).all():
            done = self._part(velocity_B2)
            records, velocity_B2 = take(records, done), velocity_B2[done]
        answers = np.empty(len(records), ANSWER)
        answers["velocity"] = velocity_B2
        answers["context_steps"] = self.context_B[done]
        answers["filled"] = records["filled"]
        answers["status"] = ANSWERED
        answers["flags"] = self.flags_B[done]
        answers["model"] = len(self.answers.digests) - 1
        answers["queue_s"] = timing.began - records["submitted"]
        answers["compute_s"] = timing.ended - timing.began
        answers["batch_size"] = self.rows
        if self.earliest < timing.ended:
            answers["flags"] |= (records["deadline"] < timing.ended) * _LATE
        self.answers.settle(records, answers)
        kept = where(table.is_open(records["stream"], records["place"]))
        decoded = Decoded.of(take(records, kept), velocity_B2[kept])
        table.answered(decoded.place_B, records["step"][kept], take(answers, kept))
        self.outbox.decoded.append(decoded)

    def fail(self, error: ModelError) -> None:
        """Fails every step. The streams begin again: they may have been advanced, or not."""
        self.queue.end()
        self._fail(self.records, error)

    def _part(self, velocity_B2: Velocity) -> Index:
        """Which steps are to be answered, once the others have been failed or put back."""
        records, table = self.records, self.table
        finite_B = np.isfinite(velocity_B2).all(axis=1)
        if not finite_B.all():
            self._fail(records[~finite_B], not_finite())
        real_B = np.arange(len(records)) < self.real
        again = records[finite_B & ~real_B]
        if len(again):
            table.filled(again["place"][table.is_open(again["stream"], again["place"])])
            again["filled"] += 1
            self.queue.put_back(again)
        return where(finite_B & real_B)

    def _fail(self, records: Records, error: ModelError) -> None:
        """Fails some of the steps."""
        opened_B = self.table.is_open(records["stream"], records["place"])
        self.table.lose(records["place"][opened_B])
        self.answers.fail(records, error)
