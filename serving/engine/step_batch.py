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
from serving.engine.records import Records, take, where
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
        events: events of its fullest step.
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
    events: int
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
        place_B = records["place"]
        open_B = table.is_open(records["stream"])
        finite_B = np.isfinite(velocity_B2[:, 0]) & np.isfinite(velocity_B2[:, 1])
        real_B = np.arange(len(records)) < self.real
        table.end(place_B[where(open_B)])
        table.advance(place_B[where(open_B & finite_B)])
        if np.count_nonzero(finite_B) < len(records):
            self._fail(records[~finite_B], not_finite())

        answers = np.zeros(len(records), ANSWER)
        answers["velocity"] = velocity_B2
        answers["context_steps"] = self.context_B
        answers["filled"] = records["filled"]
        answers["status"] = ANSWERED
        answers["flags"] = self.flags_B | (records["deadline"] < timing.ended) * _LATE
        answers["model"] = len(self.answers.digests) - 1
        answers["queue_s"] = timing.began - records["submitted"]
        answers["compute_s"] = timing.ended - timing.began
        answers["batch_size"] = len(records)
        done_B = real_B & finite_B
        done, kept = where(done_B), where(done_B & open_B)
        table.answered(place_B[kept], records["step"][kept], take(answers, kept))
        self.answers.settle(take(records, done), take(answers, done))
        self.outbox.decoded.append(
            Decoded(
                stream_B=records["stream"][kept],
                velocity_B2=velocity_B2[kept],
                submitted_B=records["submitted"][kept],
            )
        )
        if self.real < len(records):
            again = records[~real_B & finite_B]
            again["filled"] += 1
            self.queue.put_back(again)

    def fail(self, error: ModelError) -> None:
        """Fails every step. The streams begin again: they may have been advanced, or not."""
        self._fail(self.records, error)

    def _fail(self, records: Records, error: ModelError) -> None:
        place_B = records["place"][self.table.is_open(records["stream"])]
        self.table.end(place_B)
        self.table.lose(place_B)
        self.answers.fail(records, error)
