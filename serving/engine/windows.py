"""Windows that wait, and how a batch of them is run."""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Answer, Flag
from serving.engine.errors import EngineError, ExpiredError, ModelError
from serving.engine.faults import Faults, not_finite
from serving.engine.jobs import Kind, WindowJob
from serving.engine.launch import Filling, Timing
from serving.engine.model import Model, Pending, Velocity
from serving.engine.outbox import Outbox


@dataclass(eq=False, kw_only=True)
class WindowBatch:
    """A batch of windows in the model. See Launch."""

    outbox: Outbox
    model: Model
    jobs: Sequence[WindowJob]
    events: int
    at: float
    pending: Pending
    kind: Kind = Kind.WINDOW

    @property
    def rows(self) -> int:
        """Windows in it."""
        return len(self.jobs)

    def land(self, velocity_B2: Velocity, timing: Timing) -> None:
        """Answers each window; one whose velocity is not finite fails alone."""
        context, digest = self.model.grid.window_steps, self.model.digest
        began, ended = timing
        outcomes = self.outbox.outcomes
        rows = zip(self.jobs, velocity_B2.tolist(), strict=True)
        for job, (x, y) in rows:
            if not (math.isfinite(x) and math.isfinite(y)):
                outcomes.append((job, not_finite()))
                continue
            answer = Answer(
                velocity=(x, y),
                context_steps=context,
                filled=0,
                flags=Flag.LATE if ended > job.deadline else Flag(0),
                digest=digest,
                queue_s=began - job.submitted,
                compute_s=ended - began,
                batch_size=len(self.jobs),
            )
            outcomes.append((job, answer))

    def fail(self, error: ModelError) -> None:
        """Fails every window."""
        self.outbox.outcomes += [(job, error) for job in self.jobs]


class Windows:
    """A queue of windows by deadline, and by arrival among equals. See Lane."""

    def __init__(self, model: Model, *, max_batch: int, outbox: Outbox, faults: Faults) -> None:
        """An empty queue.

        Args:
            model: decodes windows.
            max_batch: windows in a batch at most.
            outbox: where outcomes go.
            faults: what to do about errors of the model.
        """
        self._model = model
        self._max_batch = max_batch
        self._outbox = outbox
        self._faults = faults
        self._arrivals = itertools.count()
        self._heap: list[tuple[float, int, WindowJob]] = []

    def __len__(self) -> int:
        """Windows waiting."""
        return len(self._heap)

    def serve(self, model: Model) -> None:
        """Decodes with another model from now on."""
        self._model = model

    def add(self, job: WindowJob) -> None:
        """Queues a window."""
        heapq.heappush(self._heap, (job.deadline, next(self._arrivals), job))

    def sweep(self, now: float) -> None:
        """Answers what has expired."""
        while self._heap and self._heap[0][0] <= now:
            job = heapq.heappop(self._heap)[2]
            self._outbox.outcomes.append((job, ExpiredError.unbegun()))

    def expiry(self) -> float:
        """The earliest deadline."""
        return self._heap[0][0] if self._heap else float("inf")

    def urgency(self) -> float | None:
        """The earliest deadline, if any window waits."""
        return self._heap[0][0] if self._heap else None

    def filling(self) -> Filling:
        """All that wait."""
        return Filling(
            rows=len(self._heap),
            events=max(len(job.events) for _, _, job in self._heap),
            since=min(job.submitted for _, _, job in self._heap),
        )

    def launch(self, now: float) -> WindowBatch | None:
        """Launches the most urgent windows. Wrong ones fail alone."""
        while jobs := self._pop():
            events, wrong = RaggedEvents.of([job.events for job in jobs]).validated(
                n_units=len(self._model.unit_ids),
                n_bins=self._model.grid.window_bins,
                where=lambda row: "window",
            )
            if wrong:
                self._outbox.outcomes += [(jobs[row], error) for row, error in wrong.items()]
                right = [row for row in range(len(jobs)) if row not in wrong]
                jobs = [jobs[row] for row in right]
                events = events.take(np.array(right, np.int64))
            if not jobs:
                continue
            try:
                pending = self._model.launch_windows(events)
            except Exception as error:
                failed = self._faults.of_batch(error)
                self._outbox.outcomes += [(job, failed) for job in jobs]
                continue
            return WindowBatch(
                outbox=self._outbox,
                model=self._model,
                jobs=jobs,
                events=events.widest,
                at=now,
                pending=pending,
            )
        return None

    def _pop(self) -> list[WindowJob]:
        jobs: list[WindowJob] = []
        while self._heap and len(jobs) < self._max_batch:
            job = heapq.heappop(self._heap)[2]
            if job.abandoned:
                self._outbox.outcomes.append((job, EngineError("abandoned")))
            else:
                jobs.append(job)
        return jobs
