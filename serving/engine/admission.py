"""Which requests may enter the queue."""

from bisect import bisect_left, bisect_right
from typing import Protocol

from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Kind
from serving.engine.service_time import ServiceTime


class Request(Protocol):
    """What is asked of a request."""

    @property
    def kind(self) -> Kind:
        """What its batches are made of."""

    @property
    def deadline(self) -> float:
        """When its answer stops being of use, in seconds."""

    @property
    def rows(self) -> int:
        """Windows or steps in it."""

    @property
    def widest(self) -> int:
        """Events of the fullest of them."""


class _Entered:
    """The requests of one kind that are in flight, by deadline."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []
        self.rows: list[int] = []
        self.widest: list[int] = []


class Admission:
    """Bounds the requests in flight, and refuses what cannot meet its deadline.

    Under earliest-deadline-first only requests with an earlier deadline are served before a new
    one, so those, in full batches at their measured times, are what it must wait for.
    """

    def __init__(
        self, *, max_queue: int, max_batch: dict[Kind, int], service_time: ServiceTime
    ) -> None:
        """An empty queue.

        Args:
            max_queue: rows (windows and steps) in flight at most.
            max_batch: rows in a batch of each kind at most.
            service_time: the measured batch times.
        """
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._service_time = service_time
        self._entered = {kind: _Entered() for kind in Kind}
        self.in_flight = 0

    def check(self, request: Request, now: float) -> None:
        """Raises BusyError or InfeasibleError if a request may not enter at a time."""
        asked, rows, deadline = request.kind, request.rows, request.deadline
        estimate = self._service_time.estimate
        if self.in_flight + rows > self._max_queue:
            raise BusyError(
                f"{self.in_flight} windows and steps are in flight, and at most "
                f"{self._max_queue} are allowed with the {rows} asked for"
            )
        needed = 0.0
        for kind, entered in self._entered.items():
            ahead = bisect_right(entered.deadlines, deadline)
            if not ahead and kind is not asked:
                continue
            total, widest = sum(entered.rows[:ahead]), max(entered.widest[:ahead], default=0)
            if kind is asked:
                total, widest = total + rows, max(widest, request.widest)
            limit = self._max_batch[kind]
            if total >= limit:
                needed += total // limit * estimate(kind, limit, widest, now)
            if rest := total % limit:
                needed += estimate(kind, rest, widest, now)
        if now + needed > deadline:
            raise InfeasibleError(
                f"deadline is in {(deadline - now) * 1e3:.1f} ms, "
                f"an answer would take {needed * 1e3:.1f} ms"
            )

    def enter(self, request: Request) -> None:
        """Counts a request in."""
        entered = self._entered[request.kind]
        at = bisect_right(entered.deadlines, request.deadline)
        entered.deadlines.insert(at, request.deadline)
        entered.rows.insert(at, request.rows)
        entered.widest.insert(at, request.widest)
        self.in_flight += request.rows

    def leave(self, request: Request) -> None:
        """Counts a request out that was counted in."""
        entered = self._entered[request.kind]
        at = bisect_left(entered.deadlines, request.deadline)
        while (entered.rows[at], entered.widest[at]) != (request.rows, request.widest):
            at += 1
        for column in (entered.deadlines, entered.rows, entered.widest):
            del column[at]
        self.in_flight -= request.rows
