"""Runs batches on the model, and turns what it says into answers."""

from collections.abc import Callable, Sequence

import numpy as np

from cortex.errors import InputError
from cortex.events import Events
from serving.engine.errors import BusyError, ModelError
from serving.engine.jobs import (
    Answer,
    CloseJob,
    DecodeJob,
    DecodeStream,
    Job,
    OpenJob,
    Outcome,
    StepJob,
    TimedJob,
)
from serving.engine.model import Model, Velocity
from serving.engine.service_time import ServiceTime
from serving.engine.stream import Stream, StreamOrder

Outcomes = list[tuple[Job, Outcome]]


class BatchRunner:
    """The model's side of the engine. Used by the model thread only."""

    def __init__(
        self,
        *,
        model: Model,
        clock: Callable[[], float],
        service_time: ServiceTime,
        is_fatal: Callable[[Exception], bool],
    ) -> None:
        """Wraps a model.

        Args:
            model: the model.
            clock: seconds, monotonic.
            service_time: where batch times are recorded.
            is_fatal: tells errors after which the model cannot be used any more; they propagate.
        """
        self._model = model
        self._clock = clock
        self._service_time = service_time
        self._is_fatal = is_fatal

    def control(self, job: OpenJob | CloseJob) -> Outcome:
        """Opens or closes a stream."""
        try:
            if isinstance(job, OpenJob):
                if job.abandoned:
                    return None
                order: StreamOrder[Answer] = StreamOrder(self._model.grid.window_steps)
                return Stream(slot=self._model.open(), order=order)
            if not job.stream.closed:
                job.stream.closed = True
                self._model.close(job.stream.slot)
        except InputError as error:
            return BusyError(str(error))
        except Exception as error:
            return self._model_error(error)
        return None

    def run(self, batch: Sequence[TimedJob]) -> tuple[Outcomes, list[StepJob]]:
        """Runs one batch of one kind.

        Returns:
            The outcomes, and the steps that need another turn because steps before them were
            missing: each turn runs one missing step, so no other stream waits longer than that.
        """
        windows = [job for job in batch if isinstance(job, DecodeJob)]
        if windows:
            return self._decode(windows), []
        return self._step([job for job in batch if isinstance(job, StepJob)])

    def _decode(self, jobs: list[DecodeJob]) -> Outcomes:
        start = self._clock()
        try:
            velocity = _checked(self._model.decode([job.events for job in jobs]), len(jobs))
        except Exception as error:
            failed = self._model_error(error)
            return [(job, failed) for job in jobs]
        end = self._record(DecodeJob, len(jobs), start)
        context = self._model.grid.window_steps
        return [
            (job, _answer(job, row, start, end, len(jobs), context))
            for job, row in zip(jobs, velocity, strict=True)
        ]

    def _step(self, jobs: list[StepJob]) -> tuple[Outcomes, list[StepJob]]:
        outcomes: Outcomes = []
        ready: list[StepJob] = []
        gaps: list[int] = []
        for job in jobs:
            try:
                repeated = _usable(job.stream).order.repeat(job.step)
                if repeated is not None:
                    outcomes.append((job, repeated))
                    continue
                gaps.append(job.stream.order.missing(job.step))
                ready.append(job)
            except (InputError, ModelError) as error:
                outcomes.append((job, error))
        if not ready:
            return outcomes, []

        start = self._clock()
        try:
            velocity = _checked(
                self._model.step(
                    [job.stream.slot for job in ready],
                    [
                        Events.empty() if gap else job.events
                        for job, gap in zip(ready, gaps, strict=True)
                    ],
                ),
                len(ready),
            )
            context = [self._model.context_steps(job.stream.slot) for job in ready]
        except Exception as error:
            failed = self._model_error(error)
            for job in ready:
                job.stream.broken = True
                outcomes.append((job, failed))
            return outcomes, []
        end = self._record(StepJob, len(ready), start)

        again: list[StepJob] = []
        for job, gap, row, steps in zip(ready, gaps, velocity, context, strict=True):
            job.stream.order.advance()
            if gap:
                job.filled += 1
                again.append(job)
                continue
            answer = _answer(job, row, start, end, len(ready), steps)
            if isinstance(answer, Answer):
                job.stream.order.answered(job.step, answer)
            else:
                job.stream.broken = True
            outcomes.append((job, answer))
        return outcomes, again

    def _record(self, kind: type, size: int, start: float) -> float:
        end = self._clock()
        self._service_time.record(kind, size, end - start, end)
        return end

    def _model_error(self, error: Exception) -> ModelError:
        if self._is_fatal(error):
            raise error
        if isinstance(error, ModelError):
            return error
        return ModelError(f"the model failed: {type(error).__name__}: {error}".splitlines()[0])


def _usable(stream: DecodeStream) -> DecodeStream:
    if stream.closed:
        raise InputError("the stream is closed")
    if stream.broken:
        raise ModelError("the model failed in this stream: open a new one")
    return stream


def _checked(velocity: Velocity, size: int) -> Velocity:
    if np.shape(velocity) != (size, 2):
        raise ModelError(
            f"the model answered {size} requests with an array of shape {np.shape(velocity)}, "
            f"expected {(size, 2)}"
        )
    return velocity


def _answer(
    job: TimedJob, row: Velocity, start: float, end: float, size: int, context_steps: int
) -> Answer | ModelError:
    if not np.isfinite(row).all():
        return ModelError("the model answered with a velocity that is not finite")
    return Answer(
        velocity=(float(row[0]), float(row[1])),
        context_steps=context_steps,
        filled=job.filled if isinstance(job, StepJob) else 0,
        queue_s=start - job.submitted,
        compute_s=end - start,
        batch_size=size,
        late=end > job.deadline,
    )
