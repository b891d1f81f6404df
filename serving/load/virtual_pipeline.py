"""The engine's admission and its pipeline on a clock that moves when somebody waits, for tests."""

import math
from collections.abc import Callable

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.admission import Admission
from serving.engine.fake_model import FakeModel
from serving.engine.faults import Faults
from serving.engine.jobs import CloseJob, FramesJob, OpenJob, Outcome, TimedJob, WindowJob
from serving.engine.model import IntArray
from serving.engine.pipeline import NAP_S, Pipeline
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings


class VirtualPipeline:
    """What an engine does, in one thread. It is its own Target.

    A batch takes the model `batch_s + rows * row_s` seconds, and `interpreter_s` before that in
    which nothing else is done: so the model alone would be faster than the two are together.

    Attributes:
        now: seconds on its clock.
    """

    def __init__(
        self, *, batch_s: float, row_s: float, interpreter_s: float, settings: EngineSettings
    ) -> None:
        """Args: see above; and the limits."""
        self.now = 0.0
        self._batch_s = batch_s
        self._row_s = row_s
        self._interpreter_s = interpreter_s
        self._ends_at: list[float] = []
        pace = ServiceTime()
        self._admission = Admission(
            max_queue=settings.max_queue,
            max_batch=settings.limits,
            pace=pace,
        )
        self._pipeline = Pipeline(
            FakeModel(slots=settings.max_streams, window_steps=32),
            settings=settings,
            service_time=ServiceTime(),
            pace=pace,
            clock=self.clock,
            faults=Faults(),
        )

    @property
    def engine(self) -> "VirtualPipeline":
        """Where requests go."""
        return self

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def wait(self, until: float) -> None:
        """Goes on to a time, or to when outcomes have come, which are handed out."""
        while not self._hand_out():
            pipeline = self._pipeline
            if (launch := pipeline.launch()) is not None:
                self.now += self._interpreter_s
                began = max([self.now, *self._ends_at])
                self._ends_at.append(began + self._batch_s + launch.rows * self._row_s)
                continue
            at = self._next_at()
            if at > until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, at)
            if self._ends_at and self._ends_at[0] <= self.now:
                del self._ends_at[0]
                pipeline.finish(pipeline.in_flight[0].pending.wait())
            pipeline.sweep()

    def submit_window(
        self, events: Events, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> None:
        """As of Engine."""
        self._submit(WindowJob.at(self.now, events, deadline_s=deadline_s, on_done=on_done))

    def submit_frames(
        self,
        stream_N: IntArray,
        step_N: IntArray,
        events: RaggedEvents,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> None:
        """As of Engine."""
        job = FramesJob.at(
            self.now, stream_N, step_N, events, deadline_s=deadline_s, on_done=on_done
        )
        self._submit(job)

    def submit_open(self, on_done: Callable[[Outcome], None], count: int = 1) -> None:
        """As of Engine."""
        self._pipeline.take(OpenJob(on_done=on_done, count=count))

    def submit_close(self, stream: int, on_done: Callable[[Outcome], None]) -> None:
        """As of Engine."""
        self._pipeline.take(CloseJob(on_done=on_done, stream=stream))

    def _next_at(self) -> float:
        """When there is something to do if nothing arrives."""
        if not self._ends_at:
            return self._pipeline.wake_at() or math.inf
        return min(self._ends_at[0], self.now + NAP_S if self._pipeline.held() else math.inf)

    def _submit(self, job: TimedJob) -> None:
        self._admission.check(job, self.now)
        self._admission.enter(job)
        self._pipeline.take(job)

    def _hand_out(self) -> bool:
        box = self._pipeline.collect()
        for job, outcome in box.outcomes if box is not None else ():
            if isinstance(job, TimedJob):
                self._admission.leave(job)
            job.on_done(outcome)
        return box is not None
