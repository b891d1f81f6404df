"""Steps that were taken in together, and their answers as they come."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from cortex.ragged_events import RaggedEvents
from cortex.time_grid import TimeGrid
from serving.engine.answers import ANSWER, FramesAnswer, status_of
from serving.engine.jobs import FramesJob
from serving.engine.model import IntArray
from serving.engine.records import Records, put

Finished = list[tuple[FramesJob, FramesAnswer]]


class FramesBlock:
    """N steps of J jobs, as one set of columns, so that nothing is done step by step.

    Attributes:
        stream_N: the streams.
        step_N: the number of each stream's step.
        submitted_N: when each was submitted, in seconds.
        deadline_N: when each answer stops being of use.
        events: the steps' events, valid and in time order; none of wrong steps.
        wrong: what is wrong with the wrong steps.
    """

    def __init__(self, jobs: Sequence[FramesJob], *, grid: TimeGrid, n_units: int) -> None:
        """Judges the jobs' steps.

        Args:
            jobs: at least one, each with as many samples of events as streams and steps.
            grid: the model's.
            n_units: size of its vocabulary.
        """
        size_J = np.array([len(job.stream_N) for job in jobs])
        self._jobs = jobs
        self._start_J = size_J.cumsum() - size_J
        self._size_J = self._left_J = size_J
        self._job_N = np.arange(len(jobs)).repeat(size_J)
        self.stream_N: IntArray = np.concatenate([job.stream_N for job in jobs])
        self.step_N: IntArray = np.concatenate([job.step_N for job in jobs])
        self.submitted_N = np.array([job.submitted for job in jobs])[self._job_N]
        self.deadline_N = np.array([job.deadline for job in jobs])[self._job_N]
        self.events, wrong = RaggedEvents.concatenate([job.events for job in jobs]).validated(
            n_units=n_units,
            n_bins=grid.bins_per_step,
            where=lambda row: f"step {self.step_N[row]}",
        )
        self.wrong: dict[int, InputError] = wrong
        negative_N = self.step_N < 0
        for row in np.flatnonzero(negative_N).tolist() if np.count_nonzero(negative_N) else ():
            wrong[row] = InputError(f"step is {self.step_N[row]}, expected 0 or more")
        self._answers = np.zeros(len(self), ANSWER)
        self._errors: dict[int, dict[int, Exception]] = {}

    def __len__(self) -> int:
        """Steps."""
        return len(self.stream_N)

    @property
    def settled(self) -> bool:
        """Whether every step has its answer or its error."""
        return not np.count_nonzero(self._left_J)

    def abandoned(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Of which distinct rows the clients have left."""
        if not any(job.abandoned for job in self._jobs):
            return np.zeros(len(rows), bool)
        abandoned_J = np.array([job.abandoned for job in self._jobs])
        mask: npt.NDArray[np.bool_] = abandoned_J[self._job_N[rows]]
        return mask

    def answer(self, rows: IntArray, answers: Records, digests: tuple[str, ...]) -> Finished:
        """Puts down distinct rows' answers; returns the jobs that now have all of theirs."""
        put(self._answers, rows, answers)
        return self._settle(rows, digests)

    def fail(self, rows: IntArray, error: Exception, digests: tuple[str, ...]) -> Finished:
        """Puts down that distinct rows have no answer, and why; returns as `answer` does."""
        self._answers["velocity"][rows] = np.nan
        self._answers["status"][rows] = status_of(error)
        job_R = self._job_N[rows]
        for job, row in zip(job_R.tolist(), (rows - self._start_J[job_R]).tolist(), strict=True):
            self._errors.setdefault(job, {})[row] = error
        return self._settle(rows, digests)

    def _settle(self, rows: IntArray, digests: tuple[str, ...]) -> Finished:
        if len(rows) == len(self):
            settled_J = self._size_J
        else:
            settled_J = np.bincount(self._job_N[rows], minlength=len(self._jobs))
        self._left_J = self._left_J - settled_J
        finished: Finished = []
        for j in ((settled_J > 0) & (self._left_J == 0)).nonzero()[0].tolist():
            job, start = self._jobs[j], int(self._start_J[j])
            records = self._answers[start : start + len(job.stream_N)]
            answer = FramesAnswer(records=records, errors=self._errors.pop(j, {}), digests=digests)
            finished.append((job, answer))
        return finished
