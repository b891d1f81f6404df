"""The native thread that a model runs on."""

import _queue
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cortex.errors import InputError
from serving.engine.errors import ModelError
from serving.engine.host import Host
from serving.engine.jobs import Job, SwapJob
from serving.engine.messages import Ended, Message, Serving, Swapped
from serving.engine.model import MAX_IN_FLIGHT, Model, ModelCard, Pending, Velocity
from serving.engine.pipeline import NAP_S, Pipeline
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings
from serving.engine.warm_up import warm_up

# Long enough for another thread to wake and take the interpreter, in seconds.
_TURN_S = 1e-6


@dataclass(frozen=True)
class _Leave:
    """Answer what is there, and end."""


@dataclass(frozen=True)
class _Successor:
    """A thread with a model that is ready to serve waits to be given the pipeline."""

    baton: "_queue.SimpleQueue[Pipeline | None]"


_Item: TypeAlias = Job | _Leave | _Successor


class ModelThread:
    """Drives a Pipeline on a native thread, which also waits for what it launched.

    It waits in one place at a time: for requests while the model has nothing to do, and for the
    oldest launch while it is best not to launch another. So it shares the interpreter with the
    host's thread only, and a batch wakes it twice. What arrives, expires or closes while it waits
    for a launch is seen to when that ends.

    A model is built, warmed up and used on one and the same thread: CUDA graphs are replayed where
    they were captured. So another model comes with a thread of its own, to which the serving
    thread hands the pipeline over between two batches.

    It touches nothing of the host's but `notify`, the clock, the scope and the faults.
    """

    def __init__(
        self,
        *,
        settings: EngineSettings,
        pace: ServiceTime,
        host: Host,
        put_out: Callable[[Message], None],
    ) -> None:
        """A thread that has not started.

        Args:
            settings: limits.
            pace: where the pace of batches is recorded; see Pipeline.
            host: the program around.
            put_out: hands a message to the host's thread; called on any thread.
        """
        self._settings = settings
        self._pace = pace
        self._host = host
        self._put_out = put_out
        # queue.SimpleQueue may have been replaced by a cooperative one that loses wake-ups
        # between native threads; the C class never is.
        self._in: _queue.SimpleQueue[_Item] = _queue.SimpleQueue()
        self._card: ModelCard | None = None
        self._successor: _Successor | None = None
        self._over = False
        self.in_flight = 0

    def start(self, build: Callable[[], Model]) -> None:
        """Loads a model, and then serves it."""
        self._host.start_thread(self._run, (build,))

    def put(self, job: Job) -> None:
        """Gives the thread a request."""
        self._in.put(job)

    def leave(self) -> None:
        """Has the thread answer what it has been given, and end."""
        self._in.put(_Leave())

    def swap(self, job: SwapJob) -> None:
        """Loads another model on a thread of its own, and then serves it."""
        self._host.start_thread(self._run_successor, (job,))

    def _run(self, build: Callable[[], Model]) -> None:
        with self._host.scope():
            self._until_death(lambda: self._serve(self._begin(build)))

    def _begin(self, build: Callable[[], Model]) -> Pipeline:
        model = build()
        service_time = self._warmed_up(model)
        self._pace.become(service_time)
        pipeline = Pipeline(
            model,
            settings=self._settings,
            service_time=service_time,
            pace=self._pace,
            clock=self._host.clock,
            faults=self._host.faults,
        )
        # What is loaded stays: to look through it for garbage holds everybody up, for long.
        gc.collect()
        gc.freeze()
        self._card = ModelCard.of(model)
        self._put_out(Serving(self._card))
        return pipeline

    def _run_successor(self, job: SwapJob) -> None:
        with self._host.scope():
            try:
                model = job.build()
                self._check_replaces(ModelCard.of(model))
                service_time = self._warmed_up(model)
            except BaseException as error:
                self._put_out(Swapped(job, _load_error(error)))
                return
            baton: _queue.SimpleQueue[Pipeline | None] = _queue.SimpleQueue()
            self._in.put(_Successor(baton))
            # One that ends looks into the queue after it has set the flag: either it finds the
            # baton there, or the flag is seen here.
            pipeline = None if self._over else baton.get()
            if pipeline is None:
                return  # The host fails what is pending when the engine ends.
            self._until_death(lambda: self._succeed(pipeline, model, service_time, job))

    def _succeed(
        self, pipeline: Pipeline, model: Model, service_time: ServiceTime, job: SwapJob
    ) -> bool:
        pipeline.serve(model, service_time)
        gc.unfreeze()  # The model before is garbage now.
        self._card = ModelCard.of(model)
        self._put_out(Swapped(job, self._card))
        return self._serve(pipeline)

    def _until_death(self, serve: Callable[[], bool]) -> None:
        """Serves, and says so when no thread serves any more.

        Args:
            serve: serves, and returns whether it was the last to.
        """
        error: BaseException | None = None
        try:
            if not serve():
                return
        except BaseException as caught:
            error = caught
        self._over = True
        gc.unfreeze()
        for item in (*self._receive(0.0), self._successor):
            if isinstance(item, _Successor):
                item.baton.put(None)
        self._put_out(Ended(error))

    def _warmed_up(self, model: Model) -> ServiceTime:
        return warm_up(
            model,
            max_batch=self._settings.max_batch,
            max_step_batch=self._settings.max_step_batch,
            clock=self._host.clock,
        )

    def _check_replaces(self, card: ModelCard) -> None:
        """Raises InputError unless clients can go on with another model unawares."""
        assert self._card is not None
        for name in ("grid", "unit_ids", "velocity_unit"):
            if getattr(card, name) != getattr(self._card, name):
                raise InputError(
                    f"swap: {name} of model {card.name} is not that of {self._card.name}, which "
                    "is served: start another server for it"
                )

    def _serve(self, pipeline: Pipeline) -> bool:
        """Serves until told to leave: True; or until another thread has the pipeline: False."""
        while not pipeline.ended:
            for item in self._receive(self._patience(pipeline)):
                if isinstance(item, Job):
                    pipeline.take(item)
                elif isinstance(item, _Leave):
                    pipeline.leaving = True
                else:
                    self._successor = item
            pipeline.sweep()
            if self._successor is not None:
                while pipeline.in_flight:
                    self._finish(pipeline)
                self._deliver(pipeline)
                successor, self._successor = self._successor, None
                successor.baton.put(pipeline)
                return False
            launched = pipeline.launch() is not None
            self._deliver(pipeline)
            if pipeline.in_flight:
                self._attend(pipeline, launched)
        return True

    def _attend(self, pipeline: Pipeline, launched: bool) -> None:
        """Finishes the oldest launch, if there is nothing better to do until it ends."""
        in_flight = pipeline.in_flight
        if len(in_flight) == MAX_IN_FLIGHT or in_flight[0].pending.done():
            self._finish(pipeline)
        elif pipeline.held():
            self._host.sleep(NAP_S)
        elif not launched:
            self._finish(pipeline)

    def _finish(self, pipeline: Pipeline) -> None:
        pending = pipeline.in_flight[0].pending
        at_once = pending.done()
        pipeline.finish(_result_of(pending))
        self._deliver(pipeline)
        if at_once and pipeline.busy:
            # Nothing was waited for: the host's thread has not had the interpreter, and is owed it.
            self._host.sleep(_TURN_S)

    def _patience(self, pipeline: Pipeline) -> float | None:
        """Seconds to wait for something to arrive; None for as long as it takes."""
        if pipeline.in_flight:
            return 0.0
        wake_at = pipeline.wake_at()
        return None if wake_at is None else max(wake_at - self._host.clock(), 0.0)

    def _receive(self, patience_s: float | None) -> list[_Item]:
        items: list[_Item] = []
        try:
            if patience_s is None:
                items.append(self._in.get())
            elif patience_s > 0:
                items.append(self._in.get(timeout=patience_s))
            while True:
                items.append(self._in.get_nowait())
        except _queue.Empty:
            return items

    def _deliver(self, pipeline: Pipeline) -> None:
        self.in_flight = len(pipeline.in_flight)
        filled = pipeline.collect()
        if filled is not None:
            self._put_out(filled)


def _result_of(pending: Pending) -> Velocity | BaseException:
    try:
        return pending.wait()
    except BaseException as error:
        return error


def _load_error(error: BaseException) -> Exception:
    if not isinstance(error, Exception):
        return ModelError(f"the model did not load: {type(error).__name__}: {error}")
    # The traceback holds what was loaded.
    return error.with_traceback(None)
