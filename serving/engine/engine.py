"""The engine: one native thread that owns the model, and the host's side of it."""

import _queue
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from cortex.events import Events
from serving.engine.admission import Admission
from serving.engine.batch_runner import BatchRunner, Outcomes
from serving.engine.errors import EngineError, ExpiredError, NotReadyError
from serving.engine.jobs import (
    CloseJob,
    DecodeJob,
    DecodeStream,
    Job,
    OpenJob,
    Outcome,
    StepJob,
    TimedJob,
)
from serving.engine.model import Model, ModelCard
from serving.engine.scheduler import Scheduler
from serving.engine.service_time import ServiceTime
from serving.engine.stream import Stream
from serving.engine.warm_up import warm_up


class State(Enum):
    """Where the engine is in its life. Requests are taken in READY only."""

    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Limits.

    Attributes:
        max_batch: requests in a batch at most.
        max_queue: requests in flight at most.
    """

    max_batch: int = 32
    max_queue: int = 512


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """One batch that ran: the kind of its jobs, how many, and how many seconds."""

    kind: type[TimedJob]
    size: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the engine needs of the program around it.

    Attributes:
        notify: called on the model thread after something was put out; must make the host call
            `deliver` on its own thread soon. Calls may coalesce.
        start_thread: starts a native thread running a function with the given arguments.
        clock: seconds, monotonic.
        scope: entered on the model thread around all use of the model.
        is_fatal: tells errors after which the model cannot be used any more, such as a fault
            of the device. They end the model thread.
        on_batch: called by `deliver` after each batch.
        on_death: called by `deliver` once, when the model thread has died of an error.
    """

    notify: Callable[[], object]
    start_thread: Callable[[Callable[[], None], tuple[()]], object]
    clock: Callable[[], float] = time.monotonic
    scope: Callable[[], AbstractContextManager[object]] = nullcontext
    is_fatal: Callable[[Exception], bool] = lambda error: False
    on_batch: Callable[[BatchReport], None] = lambda report: None
    on_death: Callable[[BaseException], object] = lambda error: None


@dataclass(frozen=True)
class _Ready:
    card: ModelCard


@dataclass(frozen=True)
class _Ran:
    outcomes: Outcomes
    report: BatchReport | None


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


_Message: TypeAlias = _Ready | _Ran | _Ended


class Engine:
    """Decodes windows and streams.

    Every public method belongs to one thread, the host's; `deliver` must run on it too. Jobs go to
    the model thread through one C queue and outcomes come back through one deque, with one
    `notify` a batch, so neither side ever waits for a lock of the other's.

    Attributes:
        state: where the engine is in its life.
        card: the model's card, once it is loaded.
        failure: what the model thread died of.
    """

    def __init__(self, build: Callable[[], Model], *, settings: EngineSettings, host: Host) -> None:
        """An engine that has not started.

        Args:
            build: loads the model; runs on the model thread.
            settings: limits.
            host: the program around.
        """
        self._build = build
        self._settings = settings
        self._host = host
        self._service_time = ServiceTime()
        self._admission = Admission(
            max_queue=settings.max_queue,
            max_batch=settings.max_batch,
            service_time=self._service_time,
        )
        self._pending: set[Job] = set()
        # queue.SimpleQueue may have been replaced by a cooperative one that loses wake-ups
        # between native threads; the C class never is.
        self._in: _queue.SimpleQueue[Job | None] = _queue.SimpleQueue()
        self._out: deque[_Message] = deque()
        self.state = State.WARMING
        self.card: ModelCard | None = None
        self.failure: BaseException | None = None

    @property
    def pending(self) -> int:
        """Requests submitted and not yet answered."""
        return len(self._pending)

    def start(self) -> None:
        """Starts the model thread, which loads the model and then serves."""
        self._host.start_thread(self._run, ())

    def submit_decode(
        self, events: Events, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> Job:
        """Asks for the velocity at the end of a window.

        Args:
            events: the window's events.
            deadline_s: seconds from now within which the answer is of use.
            on_done: called by `deliver` with an Answer or an exception.

        Raises:
            InputError: an event does not fit the model.
            NotReadyError, BusyError, InfeasibleError: the request is refused.
        """
        card = self._ready_card()
        now = self._host.clock()
        self._admission.check(DecodeJob, now + deadline_s, now)
        events = events.validated(
            n_units=len(card.unit_ids), n_bins=card.grid.window_bins, where="window"
        )
        return self._send(
            DecodeJob(submitted=now, deadline=now + deadline_s, on_done=on_done, events=events)
        )

    def submit_step(
        self,
        stream: DecodeStream,
        step: int,
        events: Events,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> Job:
        """Asks a stream for the velocity of a step.

        A step that is not the stream's next is handled as StreamOrder says.

        Args:
            stream: an open stream.
            step: its number, from 0.
            events: its events, with time bins within the step.
            deadline_s: seconds from now within which the answer is of use.
            on_done: called by `deliver` with an Answer or an exception.

        Raises:
            InputError: an event does not fit the model.
            NotReadyError, BusyError, InfeasibleError: the request is refused.
        """
        card = self._ready_card()
        now = self._host.clock()
        self._admission.check(StepJob, now + deadline_s, now)
        events = events.validated(
            n_units=len(card.unit_ids), n_bins=card.grid.bins_per_step, where=f"step {step}"
        )
        return self._send(
            StepJob(
                submitted=now,
                deadline=now + deadline_s,
                on_done=on_done,
                stream=stream,
                step=step,
                events=events,
            )
        )

    def submit_open(self, on_done: Callable[[Outcome], None]) -> Job:
        """Asks for a new stream; `on_done` gets it, or BusyError when every slot is taken.

        Raises:
            NotReadyError: the engine takes no requests.
        """
        self._ready_card()
        now = self._host.clock()
        return self._send(OpenJob(submitted=now, deadline=float("inf"), on_done=on_done))

    def submit_close(self, stream: DecodeStream, on_done: Callable[[Outcome], None]) -> Job | None:
        """Gives a stream's slot back. Steps of it that still wait are refused.

        Returns None, without calling `on_done`, when the model thread is gone and its slots too.
        """
        if self.state in (State.STOPPED, State.FAILED):
            return None
        now = self._host.clock()
        return self._send(
            CloseJob(submitted=now, deadline=float("inf"), on_done=on_done, stream=stream)
        )

    def drain(self) -> None:
        """Takes no more requests, answers those it has, and then stops."""
        if self.state in (State.WARMING, State.READY):
            self.state = State.DRAINING
            self._in.put(None)

    def deliver(self) -> None:
        """Hands out everything that the model thread has put out. Never waits."""
        while self._out:
            message = self._out.popleft()
            if isinstance(message, _Ready):
                self.card = message.card
                if self.state is State.WARMING:
                    self.state = State.READY
            elif isinstance(message, _Ran):
                for job, outcome in message.outcomes:
                    self._settle(job, outcome)
                if message.report is not None:
                    self._host.on_batch(message.report)
            else:
                self._ended(message.error)

    def _ready_card(self) -> ModelCard:
        if self.state is not State.READY or self.card is None:
            raise NotReadyError(f"the engine is {self.state.value}")
        return self.card

    def _send(self, job: Job) -> Job:
        self._pending.add(job)
        if isinstance(job, TimedJob):
            self._admission.enter(job)
        self._in.put(job)
        return job

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if job not in self._pending:
            return
        self._pending.remove(job)
        if isinstance(job, TimedJob):
            self._admission.leave(job)
        if isinstance(job, OpenJob) and job.abandoned and isinstance(outcome, Stream):
            self.submit_close(outcome, lambda _: None)
        if not job.abandoned:
            job.on_done(outcome)

    def _ended(self, error: BaseException | None) -> None:
        self.state = State.STOPPED if error is None else State.FAILED
        self.failure = error
        for job in list(self._pending):
            self._settle(job, NotReadyError(f"the engine is {self.state.value}"))
        if error is not None:
            self._host.on_death(error)

    # The model thread. It touches nothing of the host's but the queue, the deque and notify.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with self._host.scope():
                model = self._build()
                warm_up(
                    model,
                    max_batch=self._settings.max_batch,
                    service_time=self._service_time,
                    clock=self._host.clock,
                )
                self._put_out(_Ready(ModelCard.of(model)))
                self._serve(model)
        except BaseException as caught:
            error = caught
        self._put_out(_Ended(error))

    def _serve(self, model: Model) -> None:
        scheduler = Scheduler(max_batch=self._settings.max_batch)
        runner = BatchRunner(
            model=model,
            clock=self._host.clock,
            service_time=self._service_time,
            is_fatal=self._host.is_fatal,
        )
        leaving = False
        while not (leaving and not scheduler):
            for job in self._receive(wait=not scheduler):
                if job is None:
                    leaving = True
                elif isinstance(job, OpenJob | CloseJob):
                    self._put_out(_Ran([(job, runner.control(job))], None))
                elif isinstance(job, TimedJob):
                    scheduler.add(job)
            self._run_batch(scheduler, runner)

    def _receive(self, *, wait: bool) -> list[Job | None]:
        jobs: list[Job | None] = []
        try:
            if wait:
                jobs.append(self._in.get())
            while True:
                jobs.append(self._in.get_nowait())
        except _queue.Empty:
            return jobs

    def _run_batch(self, scheduler: Scheduler, runner: BatchRunner) -> None:
        selection = scheduler.select(self._host.clock())
        outcomes: Outcomes = []
        for job in selection.expired:
            outcomes.append((job, ExpiredError("the deadline passed before the decode began")))
        for job in selection.abandoned:
            outcomes.append((job, EngineError("abandoned")))
        report = None
        if selection.batch:
            if outcomes:
                self._put_out(_Ran(outcomes, None))
            start = self._host.clock()
            outcomes, again = runner.run(selection.batch)
            for step in again:
                scheduler.put_back(step)
            report = BatchReport(
                kind=type(selection.batch[0]),
                size=len(selection.batch),
                seconds=self._host.clock() - start,
            )
        if outcomes or report is not None:
            self._put_out(_Ran(outcomes, report))

    def _put_out(self, message: _Message) -> None:
        self._out.append(message)
        self._host.notify()
