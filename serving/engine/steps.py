"""Steps of streams that wait, and how a batch of them is run."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cortex.ragged_events import RaggedEvents
from serving.engine.answers import ANSWER, ANSWERED, Flag
from serving.engine.errors import EngineError, ExpiredError, ModelError
from serving.engine.faults import Faults, not_finite
from serving.engine.frames_block import FramesBlock
from serving.engine.jobs import FramesJob, Kind
from serving.engine.launch import Filling, Timing
from serving.engine.model import IntArray, Model, Pending, Velocity
from serving.engine.outbox import Decoded, Outbox
from serving.engine.records import Index, Records, take
from serving.engine.step_queue import StepQueue
from serving.engine.stream_table import StreamTable
from serving.engine.verdict import BoolArray, Placement, Verdict, closed, refusal


@dataclass(eq=False, kw_only=True)
class StepBatch:
    """A batch of steps in the model. See Launch.

    Attributes:
        records: (B,) of WAITING: first the steps that are run with their events, then those that
            one step missing before them is run empty for.
        real: how many are run with their events.
        context_B: steps that each answer rests on.
        flags_B: of each answer.
    """

    steps: "Steps"
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
        """Answers the steps that were run with their events, and puts the others back."""
        self.steps.land(self, velocity_B2, timing)

    def fail(self, error: ModelError) -> None:
        """Fails every step. The streams begin again: they may have been advanced, or not."""
        self.steps.fail(self.records, error)


class Steps:
    """A queue of steps, and the streams that they belong to. See Lane.

    A stream's steps run in the order in which they came, whatever their deadlines, and a stream
    has one step in the model at most.
    """

    def __init__(
        self, model: Model, *, max_batch: int, table: StreamTable, outbox: Outbox, faults: Faults
    ) -> None:
        """An empty queue.

        Args:
            model: advances streams.
            max_batch: steps in a batch at most.
            table: the streams; the model has its slots.
            outbox: where outcomes go.
            faults: what to do about errors of the model.
        """
        self._model = model
        self._digests: tuple[str, ...] = (model.digest,)
        self._max_batch = max_batch
        self._table = table
        self._outbox = outbox
        self._faults = faults
        self._arrived: list[FramesJob] = []
        self._queue = StepQueue(places=table.places)
        self._widest = 0

    def __len__(self) -> int:
        """Steps waiting."""
        return len(self._queue) + sum(len(job.stream_N) for job in self._arrived)

    def serve(self, model: Model) -> None:
        """Advances streams with another model from now on: all of them begin again."""
        self._model = model
        self._digests += (model.digest,)
        self._table.lose_all(model.slots)

    def add(self, job: FramesJob) -> None:
        """Queues steps."""
        self._arrived.append(job)

    def open(self, count: int, now: float) -> IntArray:
        """Opens streams. Raises BusyError when too few slots are left, and ModelError."""
        self._take_in()
        stream_B, slot_B = self._table.open(count, now, self._queue.records["stream"])
        try:
            self._model.reset(slot_B, np.zeros(count, np.int64))
        except Exception as error:
            for stream in stream_B.tolist():
                self._table.close(stream)
            raise self._faults.of_batch(error) from None
        return stream_B

    def close(self, stream: int) -> None:
        """Closes a stream, if it is open. Its steps that wait are refused."""
        self._table.close(stream)

    def sweep(self, now: float) -> None:
        """Answers wrong steps, steps of closed streams, and what has expired."""
        self._take_in()
        if not len(self._queue):
            return
        opened_W = self._table.is_open(self._queue.records["stream"])
        if not opened_W.all():
            for record in self._queue.take(np.flatnonzero(~opened_W)):
                self._settle_failed(np.array([record]), closed(int(record["stream"])))
        expired = np.flatnonzero(self._queue.records["deadline"] <= now)
        if len(expired):
            self._settle_failed(self._queue.take(expired), ExpiredError.unbegun())

    def expiry(self) -> float:
        """The earliest deadline."""
        waiting = self._queue.records["deadline"].min(initial=np.inf)
        return min((float(waiting), *(job.deadline for job in self._arrived)))

    def urgency(self) -> float | None:
        """The earliest deadline of the steps that are their streams' next."""
        index = self._launchable()
        return float(self._queue.records["deadline"][index].min()) if len(index) else None

    def filling(self) -> Filling:
        """All that are their streams' next. The fullest is that of the steps taken in last."""
        index = self._launchable()
        since = float(self._queue.records["submitted"][index].min())
        return Filling(rows=len(index), events=self._widest, since=since)

    def launch(self, now: float) -> StepBatch | None:
        """Launches the most urgent steps. Those that are not to be run are answered."""
        while len(index := self._launchable()):
            if len(index) > self._max_batch:
                deadline = self._queue.records["deadline"][index]
                index = np.sort(index[np.argsort(deadline, kind="stable")[: self._max_batch]])
            waiting = self._queue.records["stream"]
            records = self._without_abandoned(self._queue.take(index))
            placement = self._table.place(records["stream"], records["step"], now, waiting)
            self._answer_at_once(records, placement, now)
            batch = self._launch(records, placement, now)
            if batch is not None:
                return batch
        return None

    def land(self, batch: StepBatch, velocity_B2: Velocity, timing: Timing) -> None:
        """Puts down what a batch gave. A step whose velocity is not finite fails alone."""
        records, table = batch.records, self._table
        open_B = table.is_open(records["stream"])
        finite_B = np.isfinite(velocity_B2).all(1)
        real_B = np.arange(len(records)) < batch.real
        table.end(records["stream"][open_B])
        table.advance(records["stream"][open_B & finite_B])
        if not finite_B.all():
            self.fail(records[~finite_B], not_finite())

        answers = np.zeros(len(records), ANSWER)
        answers["velocity"] = velocity_B2
        answers["context_steps"] = batch.context_B
        answers["filled"] = records["filled"]
        answers["status"] = ANSWERED
        answers["flags"] = batch.flags_B
        answers["flags"][records["deadline"] < timing.ended] |= np.uint8(Flag.LATE)
        answers["model"] = len(self._digests) - 1
        answers["queue_s"] = timing.began - records["submitted"]
        answers["compute_s"] = timing.ended - timing.began
        answers["batch_size"] = len(records)
        done = _where(real_B & finite_B)
        kept = _where(real_B & finite_B & open_B)
        table.answered(records["stream"][kept], records["step"][kept], take(answers, kept))
        self._settle(take(records, done), take(answers, done))
        self._outbox.decoded.append(
            Decoded(
                stream_B=records["stream"][kept],
                velocity_B2=velocity_B2[kept],
                submitted_B=records["submitted"][kept],
            )
        )
        again = records[~real_B & finite_B]
        if len(again):
            again["filled"] += 1
            self._queue.put_back(again)

    def fail(self, records: Records, error: Exception) -> None:
        """Fails steps that were in the model. Their streams begin again with their next step."""
        stream_B = records["stream"][self._table.is_open(records["stream"])]
        self._table.end(stream_B)
        self._table.lose(stream_B)
        self._settle_failed(records, error)

    def _take_in(self) -> None:
        if not self._arrived:
            return
        block = FramesBlock(self._arrived, grid=self._model.grid, n_units=len(self._model.unit_ids))
        self._arrived = []
        self._widest = block.events.widest
        for row, error in block.wrong.items():
            self._outbox.outcomes += block.fail(np.array([row]), error, self._digests)
        if not block.settled:
            self._queue.add(block)

    def _launchable(self) -> IntArray:
        """Steps, as indices of the queue, that are the next of a stream with none in the model."""
        heads_W = self._queue.heads()
        return np.flatnonzero(heads_W & ~self._table.is_busy(self._queue.records["stream"]))

    def _without_abandoned(self, records: Records) -> Records:
        abandoned_B = np.zeros(len(records), bool)
        for block, part in self._queue.by_block(records):
            abandoned_B[part] = block.abandoned(records["row"][part])
        if abandoned_B.any():
            self._settle_failed(records[abandoned_B], EngineError("abandoned"))
        return take(records, _where(~abandoned_B))

    def _answer_at_once(self, records: Records, placement: Placement, now: float) -> None:
        """Answers the steps that the model has nothing to do for."""
        again = records[placement.verdict_B == Verdict.DUPLICATE]
        if len(again):
            answers = self._table.answer(again["stream"])
            answers["flags"] |= np.uint8(Flag.DUPLICATE)
            answers["queue_s"] = now - again["submitted"]
            answers["compute_s"] = 0
            self._settle(again, answers)
        for index in np.flatnonzero(placement.verdict_B > Verdict.DUPLICATE).tolist():
            record = records[index]
            error = refusal(
                Verdict(placement.verdict_B[index]),
                step=int(record["step"]),
                expected=self._table.next_step(int(record["stream"])),
                window_steps=self._model.grid.window_steps,
            )
            self._settle_failed(records[index : index + 1], error)

    def _launch(self, records: Records, placement: Placement, now: float) -> StepBatch | None:
        real = np.flatnonzero(placement.verdict_B == Verdict.RUN)
        empty = np.flatnonzero(placement.verdict_B == Verdict.FILL)
        if not len(real) + len(empty):
            return None
        if len(real) < len(records):
            order = np.concatenate([real, empty])
            records = take(records, order)
            slot_B, restarted_B = placement.slot_B[order], placement.restarted_B[order]
        else:
            slot_B, restarted_B = placement.slot_B, placement.restarted_B
        try:
            parts = [
                block.events.take(records["row"][: len(real)][part])
                for block, part in self._queue.by_block(records[: len(real)])
            ]
            events = RaggedEvents.concatenate([*parts, RaggedEvents.silence(len(empty))])
            if restarted_B.any():
                self._model.reset(slot_B[restarted_B], records["step"][restarted_B])
            pending = self._model.launch_steps(slot_B, events)
        except Exception as error:
            self.fail(records, self._faults.of_batch(error))
            return None
        self._table.begin(records["stream"], now)
        return StepBatch(
            steps=self,
            records=records,
            real=len(real),
            context_B=self._table.context(records["stream"]),
            flags_B=np.where(restarted_B, Flag.RESTARTED, 0).astype(np.uint8),
            events=events.widest,
            at=now,
            pending=pending,
        )

    def _settle(self, records: Records, answers: Records) -> None:
        for block, part in self._queue.by_block(records):
            self._outbox.outcomes += block.answer(
                records["row"][part], answers[part], self._digests
            )

    def _settle_failed(self, records: Records, error: Exception) -> None:
        for block, part in self._queue.by_block(records):
            self._outbox.outcomes += block.fail(records["row"][part], error, self._digests)


def _where(mask_B: BoolArray) -> Index:
    """An index of where a mask is true. Records are large, and all of them need no copy."""
    return slice(None) if mask_B.all() else np.flatnonzero(mask_B)
