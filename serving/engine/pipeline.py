"""What the model's side of the engine does, apart from the thread that it does it on."""

import math
from collections import deque
from collections.abc import Callable

from serving.engine.errors import BusyError, ModelError
from serving.engine.faults import Faults, check_velocity
from serving.engine.jobs import CloseJob, FramesJob, Job, Kind, OpenJob, Outcome, WindowJob
from serving.engine.launch import Lane, Launch, Timing
from serving.engine.model import MAX_IN_FLIGHT, Model, Velocity
from serving.engine.outbox import BatchReport, Outbox
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings
from serving.engine.steps import Steps
from serving.engine.stream_table import StreamTable
from serving.engine.turns import Turns
from serving.engine.windows import Windows

# A launch is put off for no less than this, in seconds, while it would only wait in the model.
NAP_S = 2e-4
# Two halves may take so many times as long as a whole.
_HARDLY_LONGER = 1.25
# Of the newest launch, in the average of what launching costs.
_WEIGHT = 0.2


class Pipeline:
    """Queues, the streams, and the batches in the model. It never waits.

    Whoever drives it calls `take` with what arrives, `launch` until there is nothing to launch,
    `finish` with the velocities of each launch, in order, and `collect` for what came of it.

    Attributes:
        model: the model.
        in_flight: batches in the model, the oldest first.
        leaving: nothing more will be taken.
    """

    def __init__(
        self,
        model: Model,
        *,
        settings: EngineSettings,
        service_time: ServiceTime,
        pace: ServiceTime,
        clock: Callable[[], float],
        faults: Faults,
    ) -> None:
        """A pipeline with nothing in it.

        Args:
            model: the model; its slots hold no streams yet.
            settings: limits.
            service_time: seconds that the model takes for a batch; recorded and read here.
            pace: seconds from one batch to the next while batches wait, with all that the
                interpreter does between; recorded here for who admits requests.
            clock: seconds, monotonic.
            faults: what to do about errors of the model.
        """
        self.model = model
        self.in_flight: deque[Launch] = deque()
        self.leaving = False
        self._clock = clock
        self._faults = faults
        self._service_time = service_time
        self._pace = pace
        self._delay_s = settings.batch_delay_s
        self._turns = Turns(most=settings.max_turns)
        self._limits = settings.limits
        # When the model last had nothing to do, as far as is known.
        self._free_at = -math.inf
        # What it costs to launch a batch, in seconds.
        self._launch_s = 0.0
        self._outbox = Outbox()
        self._table = StreamTable(
            places=settings.max_streams,
            slots=model.slots,
            window_steps=model.grid.window_steps,
            idle_s=settings.evict_idle_s,
        )
        self._windows = Windows(model, outbox=self._outbox, faults=faults)
        self._steps = Steps(
            model,
            table=self._table,
            pace=pace,
            outbox=self._outbox,
            faults=faults,
        )
        self._lanes: dict[Kind, Lane] = {Kind.WINDOW: self._windows, Kind.STEP: self._steps}

    @property
    def ended(self) -> bool:
        """Whether it is leaving and everything is answered."""
        return self.leaving and not self.busy

    @property
    def busy(self) -> bool:
        """Whether anything waits or is in the model."""
        return bool(self.in_flight) or any(map(len, self._lanes.values()))

    def take(self, job: Job) -> None:
        """Queues a request; opens or closes a stream."""
        if isinstance(job, WindowJob):
            self._windows.add(job)
        elif isinstance(job, FramesJob):
            self._steps.add(job)
        elif isinstance(job, OpenJob):
            self._outbox.outcomes.append((job, self._open(job)))
        elif isinstance(job, CloseJob):
            self._steps.close(job.stream)
            self._outbox.outcomes.append((job, None))

    def sweep(self) -> None:
        """Answers what is not to be computed, if there may be any such."""
        now = self._clock()
        for lane in self._lanes.values():
            if len(self.in_flight) < MAX_IN_FLIGHT or lane.expiry() <= now:
                lane.sweep(now)

    def launch(self) -> Launch | None:
        """Launches the next batch that is due.

        Returns None when none is, when the model is full, and while the launch is `held`.
        """
        if len(self.in_flight) == MAX_IN_FLIGHT or self.held():
            return None
        now = self._clock()
        due = {}
        for kind, lane in self._lanes.items():
            lane.sweep(now)
            urgency = lane.urgency()
            if urgency is not None and self._due_at(kind, urgency, now) <= now:
                due[kind] = urgency
        while due:
            kind = self._turns.choose(due)
            launch = self._lanes[kind].launch(now, self._most(kind, now))
            if launch is not None:
                self.in_flight.append(launch)
                self._launch_s += _WEIGHT * (self._clock() - now - self._launch_s)
                return launch
            del due[kind]
        return None

    def _most(self, kind: Kind, now: float) -> int:
        """Rows of the next batch at most.

        Before a model that has nothing to do, two halves are better than a whole that they hardly
        take longer than: the host makes ready the second, and answers the first, while the model
        works on the other.
        """
        limit = self._limits[kind]
        if self.in_flight:
            return limit
        filling = self._lanes[kind].filling()
        rows = min(filling.rows, limit)
        half = -(-rows // 2)
        whole_s, half_s = (
            self._service_time.estimate(kind, n, filling.events, now) for n in (rows, half)
        )
        return half if 0 < 2 * half_s <= _HARDLY_LONGER * whole_s else limit

    def held(self) -> bool:
        """Whether the next batch has time to fill: it would only wait in the model.

        It is launched before the running one should end, as measured of its bucket, by twice what
        launching costs: once for the launch itself, and once so that the model is seen to end
        early when it does. Else every end would be noticed late, and the next expected later.
        """
        if len(self.in_flight) != 1:
            return False
        (running,) = self.in_flight
        now = self._clock()
        service_s = self._service_time.estimate(running.kind, running.rows, running.events, now)
        ends_at = max(running.at, self._free_at) + service_s
        return ends_at - 2 * self._launch_s - now >= NAP_S

    def finish(self, result: Velocity | BaseException) -> None:
        """Settles the oldest launch with its velocities, or with what it failed of."""
        launch = self.in_flight.popleft()
        free_at, ended = self._free_at, self._clock()
        timing = Timing(began=max(launch.at, free_at), ended=ended)
        self._free_at = ended
        try:
            if isinstance(result, BaseException):
                raise result
            check_velocity(result, launch.rows)
        except Exception as error:
            launch.fail(self._faults.of_batch(error))
            return
        launch.land(result, timing)
        kind, rows, events, seconds = launch.kind, launch.rows, launch.events, ended - timing.began
        self._service_time.record(kind, rows, events, seconds, ended)
        # A batch that waited to fill was in nobody's way.
        asked_at = launch.at if self._delay_s else launch.since
        self._pace.record(kind, rows, events, ended - max(asked_at, free_at), ended)
        self._outbox.reports.append(BatchReport(kind, rows, seconds))

    def wake_at(self) -> float | None:
        """When there will be something to do though nothing arrives or ends; None for never."""
        now = self._clock()
        times = []
        for kind, lane in self._lanes.items():
            times.append(lane.expiry())
            urgency = lane.urgency() if len(self.in_flight) < MAX_IN_FLIGHT else None
            if urgency is not None:
                times.append(self._due_at(kind, urgency, now))
        first = min(times)
        return first if first < math.inf else None

    def collect(self) -> Outbox | None:
        """What has come to be since the last call; None for nothing."""
        box = self._outbox
        if not (box.outcomes or box.reports):
            return None
        box.counts = self._table.take_counts()
        return box.emptied()

    def serve(self, model: Model, service_time: ServiceTime) -> None:
        """Goes on with another model of the same grid and vocabulary. Nothing is in flight.

        Args:
            model: the model; its slots hold no streams yet.
            service_time: what was measured of it.
        """
        self.model = model
        self._service_time.become(service_time)
        self._pace.become(service_time)
        for lane in self._lanes.values():
            lane.serve(model)

    def _open(self, job: OpenJob) -> Outcome:
        try:
            return None if job.abandoned else self._steps.open(job.count, self._clock())
        except (BusyError, ModelError) as refused:
            return refused

    def _due_at(self, kind: Kind, urgency: float, now: float) -> float:
        """When the batch that waits in a lane is to be launched."""
        if self._delay_s <= 0 or self.leaving:
            return -math.inf
        filling = self._lanes[kind].filling()
        if filling.rows >= self._limits[kind]:
            return -math.inf
        service_s = self._service_time.estimate(kind, filling.rows, filling.events, now)
        return min(filling.since + self._delay_s, urgency - service_s)
