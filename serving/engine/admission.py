"""Which requests may enter the queue."""

from bisect import bisect_left, bisect_right, insort

from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import DecodeJob, StepJob, TimedJob
from serving.engine.service_time import ServiceTime


class Admission:
    """Bounds the requests in flight, and refuses what cannot meet its deadline.

    Under earliest-deadline-first only requests with an earlier deadline are served before a new
    one, so those, in batches at their measured times, are what it must wait for.
    """

    def __init__(self, *, max_queue: int, max_batch: int, service_time: ServiceTime) -> None:
        """An empty queue.

        Args:
            max_queue: requests in flight at most.
            max_batch: requests in a batch at most.
            service_time: the measured batch times.
        """
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._service_time = service_time
        self._deadlines: dict[type[TimedJob], list[float]] = {DecodeJob: [], StepJob: []}

    @property
    def in_flight(self) -> int:
        """Requests that have entered and not left."""
        return sum(len(deadlines) for deadlines in self._deadlines.values())

    def check(self, kind: type[TimedJob], deadline: float, now: float) -> None:
        """Raises BusyError or InfeasibleError if a request of this kind may not enter."""
        if self.in_flight >= self._max_queue:
            raise BusyError(f"{self._max_queue} requests are in flight, the most allowed")
        needed = 0.0
        for each, deadlines in self._deadlines.items():
            ahead = bisect_right(deadlines, deadline)
            full, rest = divmod(ahead + (each is kind), self._max_batch)
            if full:
                needed += full * self._service_time.estimate(each, self._max_batch, now)
            if rest:
                needed += self._service_time.estimate(each, rest, now)
        if now + needed > deadline:
            raise InfeasibleError(
                f"deadline is in {(deadline - now) * 1e3:.1f} ms, "
                f"an answer would take {needed * 1e3:.1f} ms"
            )

    def enter(self, job: TimedJob) -> None:
        """Counts a request in."""
        insort(self._deadlines[type(job)], job.deadline)

    def leave(self, job: TimedJob) -> None:
        """Counts a request out."""
        deadlines = self._deadlines[type(job)]
        del deadlines[bisect_left(deadlines, job.deadline)]
