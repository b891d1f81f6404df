"""The engine: decodes windows and streams for many callers, on threads of its own."""

from collections import deque
from collections.abc import Callable
from enum import Enum

import numpy as np

from cortex.errors import InputError
from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.admission import Admission
from serving.engine.answers import FramesAnswer
from serving.engine.errors import NotReadyError
from serving.engine.host import Host
from serving.engine.jobs import (
    CloseJob,
    FramesJob,
    Job,
    OpenJob,
    Outcome,
    SwapJob,
    TimedJob,
    WindowJob,
)
from serving.engine.latest import LatestVelocities
from serving.engine.messages import Ended, Message, Serving, Swapped
from serving.engine.model import IntArray, Model, ModelCard
from serving.engine.model_thread import ModelThread
from serving.engine.outbox import Outbox
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings
from serving.engine.stalled import Latest


class State(Enum):
    """Where the engine is in its life. Requests are taken in READY only."""

    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Engine:
    """Decodes windows and streams.

    Every public method belongs to one thread, the host's; `deliver` must run on it too. Jobs go to
    the model thread through one C queue and outcomes come back through one deque, with one
    `notify` a batch, so neither side ever waits for a lock of the other's.

    Attributes:
        state: where the engine is in its life.
        card: the card of the model that serves, once it is loaded.
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
        self._host = host
        pace = ServiceTime()
        self._admission = Admission(
            max_queue=settings.max_queue,
            max_batch=settings.limits,
            pace=pace,
        )
        self._latest = LatestVelocities(places=settings.max_streams, policy=settings.stalled)
        self._pending: set[Job] = set()
        self._out: deque[Message] = deque()
        self._thread = ModelThread(settings=settings, pace=pace, host=host, put_out=self._put_out)
        self._swapping = False
        self.state = State.WARMING
        self.card: ModelCard | None = None
        self.failure: BaseException | None = None

    @property
    def pending(self) -> int:
        """Requests submitted and not yet answered; the steps of one submission are one."""
        return len(self._pending)

    @property
    def in_flight(self) -> int:
        """Batches that the model works on."""
        return self._thread.in_flight

    def start(self) -> None:
        """Starts the model thread, which loads the model and then serves."""
        self._thread.start(self._build)

    def submit_window(
        self, events: Events, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> Job:
        """Asks for the velocity at the end of a window.

        Args:
            events: the window's events; wrong ones are an InputError for `on_done`.
            deadline_s: seconds from now within which the answer is of use.
            on_done: called by `deliver` with an Answer or an exception.

        Raises:
            InputError: the events' columns differ in length.
            NotReadyError, BusyError, InfeasibleError: the request is refused.
        """
        events.check_lengths("window")
        now = self._host.clock()
        job = WindowJob.at(now, events, deadline_s=deadline_s, on_done=on_done)
        return self._send_timed(job)

    def submit_step(
        self,
        stream: int,
        step: int,
        events: Events,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> Job:
        """Asks a stream for the velocity of a step.

        Of a step that is not the stream's next: the last one is answered again; before a later
        one the missing are run empty, at most a window of them; an earlier one is refused.

        Args:
            stream: an open stream.
            step: its number, from 0.
            events: its events, with time bins within the step; wrong ones are an InputError for
                `on_done`.
            deadline_s: seconds from now within which the answer is of use.
            on_done: called by `deliver` with an Answer or an exception.

        Raises:
            InputError: the events' columns differ in length.
            NotReadyError, BusyError, InfeasibleError: the request is refused.
        """
        events.check_lengths(f"step {step}")

        def done(outcome: Outcome) -> None:
            on_done(outcome.row(0) if isinstance(outcome, FramesAnswer) else outcome)

        job = FramesJob.at(
            self._host.clock(),
            np.array([stream]),
            np.array([step]),
            RaggedEvents.of([events]),
            deadline_s=deadline_s,
            on_done=done,
        )
        return self._send_timed(job)

    def submit_frames(
        self,
        stream_N: IntArray,
        step_N: IntArray,
        events: RaggedEvents,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> Job:
        """Asks N streams for the velocity of a step each, as submit_step does of one.

        Args:
            stream_N: open streams.
            step_N: the number of each one's step.
            events: the steps' events.
            deadline_s: seconds from now within which the answers are of use.
            on_done: called by `deliver` with a FramesAnswer, in which each step fares alone, or
                with an exception.

        Raises:
            InputError: there are no steps, or the columns do not fit each other.
            NotReadyError, BusyError, InfeasibleError: the request is refused.
        """
        if not 0 < len(stream_N) == len(step_N) == len(events):
            raise InputError(
                f"frames: {len(stream_N)} streams, {len(step_N)} steps and {len(events)} samples "
                "of events, expected as many of each, at least one"
            )
        events.check_lengths("frames")
        job = FramesJob.at(
            self._host.clock(),
            np.asarray(stream_N, np.int64),
            np.asarray(step_N, np.int64),
            events,
            deadline_s=deadline_s,
            on_done=on_done,
        )
        return self._send_timed(job)

    def submit_open(self, on_done: Callable[[Outcome], None], count: int = 1) -> Job:
        """Asks for new streams; `on_done` gets their (count,) names, or an exception.

        BusyError: every slot is taken by a stream that has not been idle for long.

        Raises:
            NotReadyError: the engine takes no requests.
        """
        self._check_ready()
        return self._send(OpenJob(on_done=on_done, count=count))

    def submit_close(self, stream: int, on_done: Callable[[Outcome], None]) -> Job | None:
        """Closes a stream. Steps of it that still wait are refused.

        Returns None, without calling `on_done`, when the model thread is gone and its slots too.
        """
        self._latest.closed(stream)
        if self.state in (State.STOPPED, State.FAILED):
            return None
        return self._send(CloseJob(on_done=on_done, stream=stream))

    def latest(self, stream: int) -> Latest:
        """A stream's velocity now, by the stalled policy. Never waits.

        Raises:
            InputError: the stream is not open.
            NotReadyError: no model is loaded.
        """
        if self.card is None:
            raise NotReadyError(f"the engine is {self.state.value}")
        return self._latest.at(stream, now=self._host.clock(), step_s=self.card.grid.step_s)

    def swap(self, build: Callable[[], Model], on_done: Callable[[Outcome], None]) -> Job:
        """Serves another model, once it is loaded, warmed up and checked. The old one serves on.

        Windows go to the new model from one batch to the next. Streams begin again on it, and say
        so in their next answer. When the new model does not pass, the old one stays.

        Args:
            build: loads the model, of the same grid, units and velocity unit; runs on a thread of
                its own.
            on_done: called by `deliver` with the new model's card, or an exception.

        Raises:
            NotReadyError: the engine takes no requests, or a swap is under way.
        """
        self._check_ready()
        if self._swapping:
            raise NotReadyError("another swap is under way")
        self._swapping = True
        job = SwapJob(on_done=on_done, build=build)
        self._pending.add(job)
        self._thread.swap(job)
        return job

    def drain(self) -> None:
        """Takes no more requests, answers those it has, and then stops."""
        if self.state in (State.WARMING, State.READY):
            self.state = State.DRAINING
            self._thread.leave()

    def deliver(self) -> None:
        """Hands out everything that the model thread has put out. Never waits."""
        while self._out:
            message = self._out.popleft()
            if isinstance(message, Outbox):
                self._hand_out(message)
            elif isinstance(message, Serving):
                self.card = message.card
                if self.state is State.WARMING:
                    self.state = State.READY
            elif isinstance(message, Swapped):
                self._swapping = False
                if isinstance(message.outcome, ModelCard):
                    self.card = message.outcome
                self._settle(message.job, message.outcome)
            else:
                self._ended(message)

    def _check_ready(self) -> None:
        if self.state is not State.READY:
            raise NotReadyError(f"the engine is {self.state.value}")

    def _send_timed(self, job: TimedJob) -> Job:
        self._check_ready()
        self._admission.check(job, job.submitted)
        self._admission.enter(job)
        return self._send(job)

    def _send(self, job: Job) -> Job:
        self._pending.add(job)
        self._thread.put(job)
        return job

    def _hand_out(self, box: Outbox) -> None:
        for decoded in box.decoded:
            self._latest.update(decoded)
        for job, outcome in box.outcomes:
            self._settle(job, outcome)
        for report in box.reports:
            self._host.on_batch(report)
        self._host.on_streams(box.counts)

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if job not in self._pending:
            return
        self._pending.remove(job)
        if isinstance(job, TimedJob):
            self._admission.leave(job)
        elif isinstance(job, OpenJob) and isinstance(outcome, np.ndarray):
            self._latest.opened(outcome)
            if job.abandoned:
                for stream in outcome.tolist():
                    self.submit_close(stream, lambda _: None)
        if not job.abandoned:
            job.on_done(outcome)

    def _ended(self, message: Ended) -> None:
        self.state = State.STOPPED if message.error is None else State.FAILED
        self.failure = message.error
        for job in list(self._pending):
            self._settle(job, NotReadyError(f"the engine is {self.state.value}"))
        if message.error is not None:
            self._host.on_death(message.error)

    def _put_out(self, message: Message) -> None:
        self._out.append(message)
        self._host.notify()
