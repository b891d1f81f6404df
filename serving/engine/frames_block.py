"""Steps that were taken in together, and their answers as they come."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from cortex.ragged_events import RaggedEvents
from cortex.time_grid import TimeGrid
from serving.engine.answers import ANSWER, FramesAnswer, status_of
from serving.engine.jobs import FramesJob
from serving.engine.records import EVERY, Index, Records, put

# A record is one waiting step: its stream and the stream's place, its times as of its job, where it
# is in its block, and how many missing steps of its stream have been run empty for it.
WAITING = np.dtype(
    [
        ("stream", np.int64),
        ("place", np.int64),
        ("step", np.int64),
        ("submitted", np.float64),
        ("deadline", np.float64),
        ("block", np.int64),
        ("job", np.int64),
        ("row", np.int64),
        ("filled", np.int64),
    ]
)

Finished = list[tuple[FramesJob, FramesAnswer]]


class FramesBlock:
    """N steps of J jobs, as one set of columns, so that nothing is done step by step.

    Attributes:
        number: tells blocks apart.
        records: (N,) of WAITING: the steps, in the order of the jobs.
        events: the steps' events, valid and in time order; none of wrong steps.
        wrong: what is wrong with the wrong steps.
    """

    def __init__(
        self,
        jobs: Sequence[FramesJob],
        *,
        number: int,
        places: int,
        grid: TimeGrid,
        n_units: int,
    ) -> None:
        """Judges the jobs' steps.

        Args:
            jobs: at least one, each with as many samples of events as streams and steps.
            number: tells blocks apart.
            places: what stream names are counted modulo; see StreamTable.
            grid: the model's.
            n_units: size of its vocabulary.
        """
        self.number = number
        self._jobs = jobs
        self._sizes = [len(job.stream_N) for job in jobs]
        self._left = self._sizes
        size = sum(self._sizes)
        self.records = records = np.zeros(size, WAITING)
        stream_N = _joined([job.stream_N for job in jobs])
        step_N = _joined([job.step_N for job in jobs])
        records["stream"] = stream_N
        records["place"] = stream_N % places
        records["step"] = step_N
        records["submitted"] = self._of_jobs([job.submitted for job in jobs])
        records["deadline"] = self._of_jobs([job.deadline for job in jobs])
        records["block"] = number
        records["job"] = self._of_jobs(range(len(jobs)))
        records["row"] = np.arange(size)
        self.events, wrong = RaggedEvents.concatenate([job.events for job in jobs]).validated(
            n_units=n_units,
            n_bins=grid.bins_per_step,
            where=lambda row: f"step {step_N[row]}",
        )
        self.wrong: dict[int, InputError] = wrong
        if step_N.min() < 0:
            for row in np.flatnonzero(step_N < 0).tolist():
                wrong[row] = InputError(f"step is {step_N[row]}, expected 0 or more")
        self._answers: Records | None = None
        self._errors: dict[int, dict[int, Exception]] = {}

    def __len__(self) -> int:
        """Steps."""
        return len(self.records)

    @property
    def settled(self) -> bool:
        """Whether every step has its answer or its error."""
        return not any(self._left)

    def events_of(self, rows: Index) -> RaggedEvents:
        """The events of some rows."""
        return self.events if rows is EVERY else self.events.take(self.records["row"][rows])

    def abandoned(self, rows: Index) -> npt.NDArray[np.bool_] | None:
        """Of which distinct rows the clients have left; None where nobody has."""
        if not any([job.abandoned for job in self._jobs]):
            return None
        abandoned_J = np.array([job.abandoned for job in self._jobs])
        mask: npt.NDArray[np.bool_] = abandoned_J[self.records["job"][rows]]
        return mask

    def answer(self, rows: Index, answers: Records, digests: tuple[str, ...]) -> Finished:
        """Puts down distinct rows' answers; returns the jobs that now have all of theirs."""
        if rows is EVERY:
            self._answers = answers
        else:
            put(self._put_down(), rows, answers)
        return self._settle(rows, digests)

    def fail(self, rows: Index, error: Exception, digests: tuple[str, ...]) -> Finished:
        """Puts down that distinct rows have no answer, and why; returns as `answer` does."""
        answers = self._put_down()
        answers["velocity"][rows] = np.nan
        answers["status"][rows] = status_of(error)
        starts = np.cumsum(self._sizes) - self._sizes
        job_R = self.records["job"][rows]
        row_R = self.records["row"][rows] - starts[job_R]
        for job, row in zip(job_R.tolist(), row_R.tolist(), strict=True):
            self._errors.setdefault(job, {})[row] = error
        return self._settle(rows, digests)

    def _put_down(self) -> Records:
        if self._answers is None:
            self._answers = np.zeros(len(self), ANSWER)
        return self._answers

    def _settle(self, rows: Index, digests: tuple[str, ...]) -> Finished:
        if rows is EVERY:
            settled, self._left = self._sizes, [0] * len(self._jobs)
        else:
            job_R = self.records["job"][rows]
            settled = np.bincount(job_R, minlength=len(self._jobs)).tolist()
            self._left = [left - rows for left, rows in zip(self._left, settled, strict=True)]
        finished: Finished = []
        answers, start = self._put_down(), 0
        for index, job in enumerate(self._jobs):
            stop = start + self._sizes[index]
            if settled[index] and not self._left[index]:
                errors = self._errors.pop(index, {})
                finished.append((job, FramesAnswer(answers[start:stop], errors, digests)))
            start = stop
        return finished

    def _of_jobs(self, values: Sequence[float]) -> Any:
        """Jobs' values, each for all of the job's steps."""
        return values[0] if len(values) == 1 else np.repeat(values, self._sizes)


def _joined(columns: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)
