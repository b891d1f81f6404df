"""Lets greenlets wait for the engine, whose model runs on a native thread."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import gevent
import numpy as np
from gevent.event import AsyncResult
from gevent.monkey import get_original

from cortex.events import Events
from serving.engine.answers import Answer, Flag
from serving.engine.engine import Engine, State
from serving.engine.errors import ExpiredError, NotReadyError
from serving.engine.faults import Faults
from serving.engine.host import Host
from serving.engine.jobs import Job, Outcome
from serving.engine.model import Model, ModelCard
from serving.engine.outbox import BatchReport
from serving.engine.settings import EngineSettings
from serving.engine.stalled import Latest
from serving.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
# A batch that has begun is waited for this much longer than its deadline: the answer is then
# late, but an answer.
_GRACE_S = 1.0


class Bridge:
    """The engine, for code on a gevent hub.

    Make it in the process and on the hub that will serve: after the fork.

    Attributes:
        leaving: set once the server should no longer be sent requests; it still answers them.
    """

    def __init__(
        self,
        build: Callable[[], Model],
        *,
        settings: EngineSettings,
        scope: Callable[[], AbstractContextManager[object]],
        faults: Faults,
        on_death: Callable[[BaseException], None],
        metrics: Metrics,
    ) -> None:
        """Makes an engine that has not started.

        Args:
            build: loads the model; runs on the model thread.
            settings: the engine's limits.
            scope: entered on the model thread around all use of the model.
            faults: what to do about errors of the model.
            on_death: called in a greenlet of its own when the model thread has died.
            metrics: where batches are counted.
        """
        # One watcher for all answers: waking the hub costs microseconds, and wake-ups coalesce.
        self._watcher = gevent.get_hub().loop.async_()
        self._metrics = metrics
        self._on_death = on_death
        self._engine = Engine(
            build,
            settings=settings,
            host=Host(
                notify=self._watcher.send,
                # The patched function would start a greenlet.
                start_thread=get_original("_thread", "start_new_thread"),
                clock=time.monotonic,
                # The patched one would need a hub on the engine's thread.
                sleep=get_original("time", "sleep"),
                scope=scope,
                faults=faults,
                on_batch=self._count_batch,
                on_streams=lambda counts: metrics.streams(**vars(counts)),
                on_death=lambda error: gevent.spawn(self._on_death, error),
            ),
        )
        self.leaving = False
        metrics.observe_engine(
            pending=lambda: self._engine.pending,
            in_flight=lambda: self._engine.in_flight,
            ready=lambda: self.ready,
        )

    def start(self) -> None:
        """Starts loading the model."""
        self._watcher.start(self._engine.deliver)
        self._engine.start()

    @property
    def state(self) -> State:
        """The engine's state."""
        return self._engine.state

    @property
    def ready(self) -> bool:
        """Whether requests are wanted."""
        return self._engine.state is State.READY and not self.leaving

    @property
    def card(self) -> ModelCard:
        """The model's card. Raises NotReadyError until it is loaded."""
        if self._engine.card is None:
            raise NotReadyError(f"the engine is {self._engine.state.value}")
        return self._engine.card

    def decode(self, events: Events, deadline_s: float) -> Answer:
        """Waits for the velocity at the end of a window.

        Raises:
            InputError: an event does not fit the model.
            EngineError: the engine refused the request or failed in it.
        """
        result: AsyncResult[Outcome] = AsyncResult()
        job = self._engine.submit_window(events, deadline_s=deadline_s, on_done=result.set)
        return self._answer(job, result, deadline_s)

    def step(self, stream: int, step: int, events: Events, deadline_s: float) -> Answer:
        """Waits for a stream's velocity at a step. Raises as `decode` does."""
        result: AsyncResult[Outcome] = AsyncResult()
        job = self._engine.submit_step(
            stream, step, events, deadline_s=deadline_s, on_done=result.set
        )
        return self._answer(job, result, deadline_s)

    def open_stream(self) -> int:
        """Opens a stream. Raises BusyError when every slot is taken."""
        result: AsyncResult[Outcome] = AsyncResult()
        streams = _wait(self._engine.submit_open(result.set), result, None)
        assert isinstance(streams, np.ndarray)
        self._metrics.streams_open.inc()
        return int(streams[0])

    def close_stream(self, stream: int) -> None:
        """Gives a stream's slot back, without waiting."""
        self._metrics.streams_open.dec()
        self._engine.submit_close(stream, lambda outcome: None)

    def latest(self, stream: int) -> Latest:
        """A stream's velocity now, without waiting.

        Raises:
            InputError: the stream is not open.
            NotReadyError: no model is loaded.
        """
        latest = self._engine.latest(stream)
        self._metrics.latest(latest.state.value)
        return latest

    def swap(self, build: Callable[[], Model]) -> ModelCard:
        """Waits until another model serves; returns its card.

        Raises:
            NotReadyError: the engine takes no requests, or a swap is under way.
            Exception: whatever the new model failed of; the old one serves on.
        """
        result: AsyncResult[Outcome] = AsyncResult()
        self._engine.swap(build, result.set)
        outcome = result.get()
        self._metrics.swapped(ok=isinstance(outcome, ModelCard))
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, ModelCard)
        self._metrics.model(outcome.name, outcome.digest)
        return outcome

    def stop(self, timeout_s: float) -> bool:
        """Answers what is pending and ends the model thread. False if it took too long."""
        self._engine.drain()
        end = time.monotonic() + timeout_s
        while self._engine.state is State.DRAINING:
            if time.monotonic() > end:
                return False
            gevent.sleep(0.005)
        return True

    def _answer(self, job: Job, result: "AsyncResult[Outcome]", deadline_s: float) -> Answer:
        answer = _wait(job, result, deadline_s + _GRACE_S)
        assert isinstance(answer, Answer)
        self._metrics.answered(late=Flag.LATE in answer.flags, filled=answer.filled)
        return answer

    def _count_batch(self, report: BatchReport) -> None:
        self._metrics.batch(report.kind.value, report.size, report.seconds)


def _wait(job: Job, result: "AsyncResult[Outcome]", timeout_s: float | None) -> Outcome:
    try:
        outcome: Outcome = result.get(timeout=timeout_s)
    except gevent.Timeout as timeout:
        job.abandon()
        raise ExpiredError("the model took too long") from timeout
    except BaseException:
        # The greenlet is being killed: its client has left.
        job.abandon()
        raise
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
