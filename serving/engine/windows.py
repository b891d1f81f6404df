"""Windows that wait, and how a batch of them is run."""

import itertools
import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from operator import itemgetter

import numpy as np

from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Answer, Flag
from serving.engine.errors import EngineError, ExpiredError, ModelError
from serving.engine.faults import Faults, not_finite
from serving.engine.jobs import Kind, WindowJob
from serving.engine.launch import Filling, Timing
from serving.engine.model import Model, Pending, Velocity
from serving.engine.outbox import Outbox

# To look a flag up costs as much as to make an answer.
_NO_FLAG, _LATE = Flag(0), Flag.LATE


@dataclass(eq=False, kw_only=True)
class WindowBatch:
    """A batch of windows in the model. See Launch."""

    outbox: Outbox
    model: Model
    jobs: Sequence[WindowJob]
    events: int
    since: float
    at: float
    pending: Pending
    kind: Kind = Kind.WINDOW

    @property
    def rows(self) -> int:
        """Windows in it."""
        return len(self.jobs)

    def land(self, velocity_B2: Velocity, timing: Timing) -> None:
        """Answers each window; one whose velocity is not finite fails alone."""
        model, (began, ended) = self.model, timing
        context, digest, size = model.grid.window_steps, model.digest, self.rows
        compute_s = ended - began
        velocities = zip(*velocity_B2.T.tolist(), strict=True)
        self.outbox.outcomes += [
            (
                job,
                Answer(
                    velocity,
                    context,
                    0,
                    _LATE if ended > job.deadline else _NO_FLAG,
                    digest,
                    began - job.submitted,
                    compute_s,
                    size,
                ),
            )
            if isfinite(velocity[0]) and isfinite(velocity[1])
            else (job, not_finite())
            for job, velocity in zip(self.jobs, velocities, strict=True)
        ]

    def fail(self, error: ModelError) -> None:
        """Fails every window."""
        self.outbox.outcomes += [(job, error) for job in self.jobs]


class Windows:
    """A queue of windows by deadline, and by arrival among equals. See Lane."""

    def __init__(self, model: Model, *, outbox: Outbox, faults: Faults) -> None:
        """An empty queue.

        Args:
            model: decodes windows.
            outbox: where outcomes go.
            faults: what to do about errors of the model.
        """
        self._model = model
        self._outbox = outbox
        self._faults = faults
        self._arrivals = itertools.count()
        # Sorted: what comes is of a later deadline, as a rule, and what goes is at the front.
        self._waiting: list[tuple[float, int, WindowJob]] = []

    def __len__(self) -> int:
        """Windows waiting."""
        return len(self._waiting)

    def serve(self, model: Model) -> None:
        """Decodes with another model from now on."""
        self._model = model

    def add(self, job: WindowJob) -> None:
        """Queues a window."""
        insort(self._waiting, (job.deadline, next(self._arrivals), job))

    def sweep(self, now: float) -> None:
        """Answers what has expired."""
        if self.expiry() <= now:
            expired = self._pop(bisect_right(self._waiting, now, key=itemgetter(0)))
            self._outbox.outcomes += [(job, ExpiredError.unbegun()) for job in expired]

    def expiry(self) -> float:
        """The earliest deadline."""
        return self._waiting[0][0] if self._waiting else math.inf

    def urgency(self) -> float | None:
        """The earliest deadline, if any window waits."""
        return self._waiting[0][0] if self._waiting else None

    def filling(self) -> Filling:
        """All that wait."""
        return Filling(
            rows=len(self),
            events=max(job.widest for _, _, job in self._waiting),
            since=min(job.submitted for _, _, job in self._waiting),
        )

    def launch(self, now: float, most: int) -> WindowBatch | None:
        """Launches the most urgent windows. Wrong ones fail alone."""
        model = self._model
        while jobs := self._pop(most):
            if any([job.abandoned for job in jobs]):
                jobs = self._without_abandoned(jobs, most)
            events, wrong = RaggedEvents.of([job.events for job in jobs]).validated(
                n_units=len(model.unit_ids),
                n_bins=model.grid.window_bins,
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
                pending = model.launch_windows(events)
            except Exception as error:
                failed = self._faults.of_batch(error)
                self._outbox.outcomes += [(job, failed) for job in jobs]
                continue
            return WindowBatch(
                outbox=self._outbox,
                model=model,
                jobs=jobs,
                events=events.widest,
                since=jobs[0].submitted,
                at=now,
                pending=pending,
            )
        return None

    def _pop(self, count: int) -> list[WindowJob]:
        popped = self._waiting[:count]
        del self._waiting[:count]
        return [job for _, _, job in popped]

    def _without_abandoned(self, jobs: Sequence[WindowJob], most: int) -> list[WindowJob]:
        """Makes up for abandoned windows by others, while there are any."""
        kept: list[WindowJob] = []
        while jobs:
            abandoned = [job for job in jobs if job.abandoned]
            kept += [job for job in jobs if not job.abandoned]
            self._outbox.outcomes += [(job, EngineError("abandoned")) for job in abandoned]
            jobs = self._pop(most - len(kept))
        return kept
