"""Steps of streams that wait, and how a batch of them is run."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Flag
from serving.engine.errors import EngineError, ExpiredError
from serving.engine.faults import Faults
from serving.engine.frames_block import FramesBlock
from serving.engine.jobs import FramesJob, Kind
from serving.engine.launch import Filling
from serving.engine.model import IntArray, Model, Pending
from serving.engine.outbox import Outbox
from serving.engine.records import EVERY, Index, Records, take, where
from serving.engine.service_time import ServiceTime
from serving.engine.step_answers import StepAnswers
from serving.engine.step_batch import StepBatch
from serving.engine.step_queue import StepQueue
from serving.engine.stream_table import StreamTable
from serving.engine.verdict import Placement, Verdict, closed, refusal

_RESTARTED = np.uint8(Flag.RESTARTED)


class _Outlook(NamedTuple):
    """What can be launched, and until when what waits is of use.

    Attributes:
        ready: which steps are the next of a stream with none in the model.
        rows: how many these are.
        urgency: their earliest deadline.
        expiry: the earliest deadline of all that wait.
    """

    ready: Index
    rows: int
    urgency: float
    expiry: float


_NOTHING = _Outlook(ready=EVERY, rows=0, urgency=math.inf, expiry=math.inf)


class Steps:
    """A queue of steps, and the streams that they belong to. See Lane.

    A stream's steps run in the order in which they came, whatever their deadlines, and a stream
    has one step in the model at most.
    """

    def __init__(
        self,
        model: Model,
        *,
        table: StreamTable,
        pace: ServiceTime,
        outbox: Outbox,
        faults: Faults,
    ) -> None:
        """An empty queue.

        Args:
            model: advances streams.
            table: the streams; the model has its slots.
            pace: seconds from one batch to the next; see Pipeline.
            outbox: where outcomes go.
            faults: what to do about errors of the model.
        """
        self._model = model
        self._table = table
        self._pace = pace
        self._outbox = outbox
        self._faults = faults
        self._arrived: list[FramesJob] = []
        self._numbers = itertools.count()
        self._queue = StepQueue(places=table.places)
        self._answers = StepAnswers(self._queue, outbox, digest=model.digest)
        self._widest = 0
        self._looked_at = 0
        self._outlook = _NOTHING

    def __len__(self) -> int:
        """Steps waiting."""
        return len(self._queue) + sum([job.rows for job in self._arrived])

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
        stream_B, slot_B = self._table.open(count, now, self._needed())
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
        self._queue.unchecked = True

    def sweep(self, now: float) -> None:
        """Answers wrong steps, steps of closed streams, and what has expired."""
        self._take_in()
        queue = self._queue
        if queue.unchecked:
            queue.unchecked = False
            records = queue.records
            opened = where(self._table.is_open(records["stream"], records["place"]))
            if opened is not EVERY:
                shut_W = np.ones(len(records), bool)
                shut_W[opened] = False
                for record in queue.take(shut_W.nonzero()[0]):
                    self._answers.fail(np.array([record]), closed(int(record["stream"])))
        if self._look().expiry <= now:
            expired = (queue.records["deadline"] <= now).nonzero()[0]
            self._answers.fail(queue.take(expired), ExpiredError.unbegun())

    def expiry(self) -> float:
        """The earliest deadline."""
        return min([self._look().expiry, *[job.deadline for job in self._arrived]])

    def urgency(self) -> float | None:
        """The earliest deadline of the steps that are their streams' next."""
        outlook = self._look()
        return outlook.urgency if outlook.rows else None

    def filling(self) -> Filling:
        """All that are their streams' next. The fullest is that of the steps taken in last."""
        outlook = self._look()
        since = float(self._queue.records["submitted"][outlook.ready].min())
        return Filling(rows=outlook.rows, events=self._widest, since=since)

    def launch(self, now: float, most: int) -> StepBatch | None:
        """Launches the most urgent steps. Those that are not to be run are answered."""
        while (outlook := self._look()).rows:
            index, needed = outlook.ready, self._needed()
            if outlook.rows > most:
                deadline = self._queue.records["deadline"][index]
                urgent = np.sort(np.argsort(deadline, kind="stable")[:most])
                index = np.arange(len(self._queue))[index][urgent]
            records = self._without_abandoned(self._queue.take(index))
            placement = self._table.place(records["place"], records["step"], now, needed)
            real = len(records)
            if not placement.all_run:
                self._refuse_unmet(records, placement, now)
                self._answer_at_once(records, placement, now)
                runs = np.flatnonzero(placement.verdict_B == Verdict.RUN)
                fills = np.flatnonzero(placement.verdict_B == Verdict.FILL)
                order, real = np.concatenate([runs, fills]), len(runs)
                records, placement = take(records, order), placement.of(order)
            if len(records) and (started := self._start(records, real, placement)):
                pending, widest = started
                self._table.begin(records["place"], now)
                self._queue.begin(records)
                return StepBatch(
                    answers=self._answers,
                    table=self._table,
                    queue=self._queue,
                    outbox=self._outbox,
                    records=records,
                    real=real,
                    context_B=placement.context_B,
                    flags_B=placement.restarted_B * _RESTARTED,
                    earliest=outlook.urgency,
                    events=widest,
                    since=float(records["submitted"][0]),
                    at=now,
                    pending=pending,
                )
        return None

    def _needed(self) -> list[IntArray]:
        return [self._queue.records["place"], *self._queue.running]

    def _take_in(self) -> None:
        if not self._arrived:
            return
        block = FramesBlock(
            self._arrived,
            number=next(self._numbers),
            places=self._table.places,
            grid=self._model.grid,
            n_units=len(self._model.unit_ids),
        )
        self._arrived = []
        for row, error in block.wrong.items():
            self._answers.fail_row(block, row, error)
        if not block.settled:
            self._queue.add(block)

    def _look(self) -> _Outlook:
        queue = self._queue
        if not len(queue):
            return _NOTHING
        if self._looked_at != queue.changes:
            deadline_W, ready = queue.records["deadline"], queue.ready()
            deadline_B = deadline_W[ready]
            expiry = float(deadline_W.min())
            self._outlook = _Outlook(
                ready=ready,
                rows=len(deadline_B),
                expiry=expiry,
                urgency=expiry if ready is EVERY else float(deadline_B.min(initial=math.inf)),
            )
            self._looked_at = queue.changes
        return self._outlook

    def _without_abandoned(self, records: Records) -> Records:
        gone_B: npt.NDArray[np.bool_] | None = None
        for block, part, rows in self._queue.by_block(records):
            abandoned = block.abandoned(rows)
            if abandoned is not None:
                gone_B = np.zeros(len(records), bool) if gone_B is None else gone_B
                gone_B[part] = abandoned
        if gone_B is None:
            return records
        self._answers.fail(records[gone_B], EngineError("abandoned"))
        return take(records, ~gone_B)

    def _refuse_unmet(self, records: Records, placement: Placement, now: float) -> None:
        """Lets go of steps that would be late even if nothing but they were run.

        To run what is missing takes a batch each, and nobody is answered by these. Under overload
        every step that is refused is missing before the next: to make up for all would leave as
        much to do as before. So streams that are behind stay behind, and the others are answered.
        """
        fills = np.flatnonzero(placement.verdict_B == Verdict.FILL)
        if len(fills):
            batch_s = self._pace.estimate(Kind.STEP, len(records), self._widest, now)
            ready_at = now + batch_s * (placement.ahead_B[fills] + 1)
            unmet = fills[ready_at > records["deadline"][fills]]
            placement.verdict_B[unmet] = Verdict.UNMET

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
                ahead=int(placement.ahead_B[index]),
                window_steps=self._model.grid.window_steps,
            )
            self._answers.fail(records[index : index + 1], error)

    def _start(
        self, records: Records, real: int, placement: Placement
    ) -> tuple[Pending, int] | None:
        """Launches steps, the first so many with their events; returns events of the fullest."""
        try:
            with_events = records if real == len(records) else records[:real]
            parts = [block.events_of(rows) for block, _, rows in self._queue.by_block(with_events)]
            if real < len(records):
                parts.append(RaggedEvents.silence(len(records) - real))
            events = RaggedEvents.concatenate(parts)
            slot_B, restarted_B = placement.slot_B, placement.restarted_B
            if np.count_nonzero(restarted_B):
                self._model.reset(slot_B[restarted_B], records["step"][restarted_B])
            return self._model.launch_steps(slot_B, events), events.widest
        except Exception as error:
            self._answers.fail(records, self._faults.of_batch(error))
            self._table.lose(records["place"])
            return None
