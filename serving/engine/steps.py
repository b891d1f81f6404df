"""Steps of streams that wait, and how a batch of them is run."""

from typing import NamedTuple

import numpy as np

from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Flag
from serving.engine.errors import EngineError, ExpiredError
from serving.engine.faults import Faults
from serving.engine.frames_block import FramesBlock
from serving.engine.jobs import FramesJob
from serving.engine.launch import Filling
from serving.engine.model import IntArray, Model
from serving.engine.outbox import Outbox
from serving.engine.records import Records, take, where
from serving.engine.step_answers import StepAnswers
from serving.engine.step_batch import StepBatch
from serving.engine.step_queue import StepQueue
from serving.engine.stream_table import StreamTable
from serving.engine.verdict import Placement, Verdict, closed, refusal

_RESTARTED = np.uint8(Flag.RESTARTED)


class _Outlook(NamedTuple):
    """What can be launched, and until when what waits is of use.

    Attributes:
        ready: steps, as indices of the queue, that are the next of a stream with none in the model.
        urgency: the earliest deadline of these.
        expiry: the earliest deadline of all that wait.
    """

    ready: IntArray
    urgency: float
    expiry: float


_NOTHING = _Outlook(ready=np.empty(0, np.int64), urgency=np.inf, expiry=np.inf)


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
        self._max_batch = max_batch
        self._table = table
        self._outbox = outbox
        self._faults = faults
        self._arrived: list[FramesJob] = []
        self._queue = StepQueue(places=table.places)
        self._answers = StepAnswers(self._queue, outbox, digest=model.digest)
        self._widest = 0
        self._looked_at = self._swept_at = (0, 0)
        self._outlook = _NOTHING

    def __len__(self) -> int:
        """Steps waiting."""
        return len(self._queue) + sum(len(job.stream_N) for job in self._arrived)

    def serve(self, model: Model) -> None:
        """Advances streams with another model from now on: all of them begin again."""
        self._model = model
        self._answers.digests += (model.digest,)
        self._table.lose_all(model.slots)

    def add(self, job: FramesJob) -> None:
        """Queues steps."""
        self._arrived.append(job)

    def open(self, count: int, now: float) -> IntArray:
        """Opens streams. Raises BusyError when too few slots are left, and ModelError."""
        self._take_in()
        stream_B, slot_B = self._table.open(count, now, self._queue.records["place"])
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
        if self._swept_at != self._state():
            opened_W = self._table.is_open(self._queue.records["stream"])
            if np.count_nonzero(opened_W) < len(opened_W):
                for record in self._queue.take(np.flatnonzero(~opened_W)):
                    self._answers.fail(np.array([record]), closed(int(record["stream"])))
            self._swept_at = self._state()
        if self._look().expiry <= now:
            expired = np.flatnonzero(self._queue.records["deadline"] <= now)
            self._answers.fail(self._queue.take(expired), ExpiredError.unbegun())

    def expiry(self) -> float:
        """The earliest deadline."""
        return min((self._look().expiry, *(job.deadline for job in self._arrived)))

    def urgency(self) -> float | None:
        """The earliest deadline of the steps that are their streams' next."""
        outlook = self._look()
        return outlook.urgency if len(outlook.ready) else None

    def filling(self) -> Filling:
        """All that are their streams' next. The fullest is that of the steps taken in last."""
        index = self._look().ready
        since = float(self._queue.records["submitted"][index].min())
        return Filling(rows=len(index), events=self._widest, since=since)

    def launch(self, now: float) -> StepBatch | None:
        """Launches the most urgent steps. Those that are not to be run are answered."""
        while len(index := self._look().ready):
            if len(index) > self._max_batch:
                deadline = self._queue.records["deadline"][index]
                index = np.sort(index[np.argsort(deadline, kind="stable")[: self._max_batch]])
            waiting = self._queue.records["place"]
            records = self._without_abandoned(self._queue.take(index))
            placement = self._table.place(records["place"], records["step"], now, waiting)
            if not placement.all_run:
                self._answer_at_once(records, placement, now)
            batch = self._launch(records, placement, now)
            if batch is not None:
                return batch
        return None

    def _take_in(self) -> None:
        if not self._arrived:
            return
        block = FramesBlock(self._arrived, grid=self._model.grid, n_units=len(self._model.unit_ids))
        self._arrived = []
        self._widest = block.events.widest
        for row, error in block.wrong.items():
            self._answers.fail_row(block, row, error)
        if not block.settled:
            self._queue.add(block)

    def _state(self) -> tuple[int, int]:
        """Changes with everything that decides what can be launched."""
        return self._queue.changes, self._table.changes

    def _look(self) -> "_Outlook":
        if not len(self._queue):
            return _NOTHING
        if self._looked_at != self._state():
            deadline_W = self._queue.records["deadline"]
            idle_W = ~self._table.is_busy(self._queue.records["place"])
            index = (self._queue.heads() & idle_W).nonzero()[0]
            deadline_B = deadline_W[index] if len(index) < len(deadline_W) else deadline_W
            self._outlook = _Outlook(
                ready=index,
                expiry=float(deadline_W[deadline_W.argmin()]),
                urgency=float(deadline_B[deadline_B.argmin()]) if len(index) else np.inf,
            )
            self._looked_at = self._state()
        return self._outlook

    def _without_abandoned(self, records: Records) -> Records:
        abandoned_B = np.zeros(len(records), bool)
        for block, part in self._queue.by_block(records):
            abandoned_B[part] = block.abandoned(records["row"][part])
        if np.count_nonzero(abandoned_B):
            self._answers.fail(records[abandoned_B], EngineError("abandoned"))
        return take(records, where(~abandoned_B))

    def _answer_at_once(self, records: Records, placement: Placement, now: float) -> None:
        """Answers the steps that the model has nothing to do for."""
        again = records[placement.verdict_B == Verdict.DUPLICATE]
        if len(again):
            answers = self._table.answer(again["place"])
            answers["flags"] |= np.uint8(Flag.DUPLICATE)
            answers["queue_s"] = now - again["submitted"]
            answers["compute_s"] = 0
            self._answers.settle(again, answers)
        for index in np.flatnonzero(placement.verdict_B > Verdict.DUPLICATE).tolist():
            record = records[index]
            error = refusal(
                Verdict(placement.verdict_B[index]),
                step=int(record["step"]),
                expected=self._table.next_step(int(record["place"])),
                window_steps=self._model.grid.window_steps,
            )
            self._answers.fail(records[index : index + 1], error)

    def _launch(self, records: Records, placement: Placement, now: float) -> StepBatch | None:
        slot_B, restarted_B, real = placement.slot_B, placement.restarted_B, len(records)
        if not placement.all_run:
            runs = np.flatnonzero(placement.verdict_B == Verdict.RUN)
            fills = np.flatnonzero(placement.verdict_B == Verdict.FILL)
            order, real = np.concatenate([runs, fills]), len(runs)
            records = take(records, order)
            slot_B, restarted_B = slot_B[order], restarted_B[order]
        if not len(records):
            return None
        try:
            parts = [
                block.events.take(records["row"][part])
                for block, part in self._queue.by_block(records[:real])
            ]
            if real < len(records):
                parts.append(RaggedEvents.silence(len(records) - real))
            events = RaggedEvents.concatenate(parts)
            if np.count_nonzero(restarted_B):
                self._model.reset(slot_B[restarted_B], records["step"][restarted_B])
            pending = self._model.launch_steps(slot_B, events)
        except Exception as error:
            self._answers.fail(records, self._faults.of_batch(error))
            self._table.lose(records["place"])
            return None
        self._table.begin(records["place"], now)
        return StepBatch(
            answers=self._answers,
            table=self._table,
            queue=self._queue,
            outbox=self._outbox,
            records=records,
            real=real,
            context_B=self._table.context(records["place"]),
            flags_B=restarted_B * _RESTARTED,
            events=events.widest,
            at=now,
            pending=pending,
        )
