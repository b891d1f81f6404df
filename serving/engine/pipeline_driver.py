"""Drives a pipeline by hand, on a clock that stands still, for tests."""

from collections.abc import Sequence

import numpy as np

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Answer, FramesAnswer
from serving.engine.faults import Faults
from serving.engine.jobs import CloseJob, FramesJob, Job, OpenJob, Outcome, WindowJob
from serving.engine.model import Model
from serving.engine.outbox import BatchReport
from serving.engine.pipeline import Pipeline
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings
from serving.engine.stream_table import StreamCounts


class PipelineDriver:
    """A pipeline whose launches end when the test says.

    Attributes:
        now: seconds on its clock.
        pipeline: the pipeline.
        outcomes: what has been answered, by job.
        reports: batches that ended.
        counts: what happened to streams.
    """

    def __init__(
        self,
        model: Model,
        settings: EngineSettings | None = None,
        *,
        faults: Faults | None = None,
        service_time: ServiceTime | None = None,
    ) -> None:
        """A pipeline with nothing in it. Arguments as of Pipeline."""
        self.now = 0.0
        self.outcomes: dict[Job, Outcome] = {}
        self.reports: list[BatchReport] = []
        self.counts = StreamCounts()
        self.pipeline = Pipeline(
            model,
            settings=settings or EngineSettings(),
            service_time=service_time or ServiceTime(),
            pace=ServiceTime(),
            clock=lambda: self.now,
            faults=faults or Faults(),
        )

    def window(self, value: int = 1, deadline_s: float = 10.0) -> WindowJob:
        """Submits a window with one event of a value."""
        job = WindowJob.at(
            self.now, one_event(value), deadline_s=deadline_s, on_done=lambda outcome: None
        )
        self.pipeline.take(job)
        return job

    def frames(
        self,
        streams: Sequence[int],
        steps: Sequence[int],
        events: Sequence[Events] | None = None,
        deadline_s: float = 10.0,
    ) -> FramesJob:
        """Submits a step each of some streams; of one event of value 1 unless said."""
        job = FramesJob.at(
            self.now,
            np.array(streams, np.int64),
            np.array(steps, np.int64),
            RaggedEvents.of(events or [one_event(1)] * len(streams)),
            deadline_s=deadline_s,
            on_done=lambda outcome: None,
        )
        self.pipeline.take(job)
        return job

    def open(self, count: int = 1) -> list[int]:
        """Opens streams, or raises the reason why not."""
        job = OpenJob(on_done=lambda outcome: None, count=count)
        self.pipeline.take(job)
        outcome = self.outcome(job)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, np.ndarray)
        return list(outcome.tolist())

    def close(self, stream: int) -> None:
        """Closes a stream."""
        self.pipeline.take(CloseJob(on_done=lambda outcome: None, stream=stream))

    def launch(self) -> None:
        """Launches one batch, which must be there."""
        assert self.pipeline.launch() is not None

    def finish(self) -> None:
        """Ends the oldest launch."""
        result: np.ndarray[tuple[int, int], np.dtype[np.float32]] | BaseException
        try:
            result = self.pipeline.in_flight[0].pending.wait()
        except Exception as error:
            result = error
        self.pipeline.finish(result)

    def settle(self) -> None:
        """Launches and ends batches until nothing is left to do."""
        while self.pipeline.launch() is not None or self.pipeline.in_flight:
            while self.pipeline.launch() is not None:
                continue
            self.finish()
        self._collect()

    def outcome(self, job: Job) -> Outcome:
        """What a job has come to, which must have been answered."""
        self._collect()
        return self.outcomes.pop(job)

    def answered(self, job: Job) -> bool:
        """Whether a job has been answered."""
        self._collect()
        return job in self.outcomes

    def row(self, job: FramesJob, row: int = 0) -> Answer | Exception:
        """What a row has come to, once everything is settled."""
        self.settle()
        answer = self.outcomes[job]
        assert isinstance(answer, FramesAnswer)
        return answer.row(row)

    def step(self, stream: int, step: int, value: int = 1) -> Answer | Exception:
        """Takes one stream through one step."""
        return self.row(self.frames([stream], [step], [one_event(value)]))

    def _collect(self) -> None:
        box = self.pipeline.collect()
        if box is None:
            return
        for job, outcome in box.outcomes:
            assert job not in self.outcomes
            self.outcomes[job] = outcome
        self.reports += box.reports
        for name, count in vars(box.counts).items():
            setattr(self.counts, name, getattr(self.counts, name) + count)


def one_event(value: int, unit: int = 0) -> Events:
    """A sample with one event, in its first bin."""
    return Events(unit=np.array([unit]), time_bin=np.array([0]), value=np.array([value]))
