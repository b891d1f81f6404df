"""Which requests may enter the queue."""

from bisect import bisect_left, bisect_right
from typing import Protocol

from cortex.power_of_two import power_of_two
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Kind
from serving.engine.service_time import ServiceTime

# Of the pace that was measured, in what is promised: half of all batches are slower than the mean,
# and a promise that cannot be kept costs as much as an answer.
_MARGIN = 1.25


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
    """The requests of one kind that are in flight, by deadline.

    Attributes:
        rows_of: windows or steps in flight, by the bucket of their width.
    """

    def __init__(self) -> None:
        self.rows_of: dict[int, int] = {}
        self._deadlines: list[float] = []
        self._rows: list[tuple[int, int]] = []

    def add(self, deadline: float, width: int, rows: int) -> None:
        at = bisect_right(self._deadlines, deadline)
        self._deadlines.insert(at, deadline)
        self._rows.insert(at, (width, rows))
        self.rows_of[width] = self.rows_of.get(width, 0) + rows

    def remove(self, deadline: float, width: int, rows: int) -> None:
        at = self._rows.index((width, rows), bisect_left(self._deadlines, deadline))
        del self._deadlines[at], self._rows[at]
        self.rows_of[width] -= rows
        if not self.rows_of[width]:
            del self.rows_of[width]

    def until(self, deadline: float) -> dict[int, int]:
        """`rows_of`, of the requests with no later deadline."""
        if not self._deadlines or self._deadlines[-1] <= deadline:
            return self.rows_of
        ahead: dict[int, int] = {}
        for width, rows in self._rows[: bisect_right(self._deadlines, deadline)]:
            ahead[width] = ahead.get(width, 0) + rows
        return ahead


class Admission:
    """Bounds the requests in flight, and refuses what cannot meet its deadline.

    Under earliest-deadline-first only requests with an earlier deadline are served before a new
    one, so those, in full batches at the pace that was measured, are what it must wait for.
    """

    def __init__(self, *, max_queue: int, max_batch: dict[Kind, int], pace: ServiceTime) -> None:
        """An empty queue.

        Args:
            max_queue: rows (windows and steps) in flight at most.
            max_batch: rows in a batch of each kind at most.
            pace: seconds from one batch to the next while batches wait.
        """
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._pace = pace
        self._entered = {kind: _Entered() for kind in Kind}
        self.in_flight = 0

    def check(self, request: Request, now: float) -> None:
        """Raises BusyError or InfeasibleError if a request may not enter at a time."""
        asked, rows, deadline = request.kind, request.rows, request.deadline
        if self.in_flight + rows > self._max_queue:
            raise BusyError(
                f"{self.in_flight} windows and steps are in flight, and at most "
                f"{self._max_queue} are allowed with the {rows} asked for"
            )
        needed = 0.0
        for kind, entered in self._entered.items():
            rows_of = entered.until(deadline)
            if kind is asked:
                width = power_of_two(request.widest)
                rows_of = {**rows_of, width: rows_of.get(width, 0) + rows}
            if rows_of:
                needed += _MARGIN * self._seconds(kind, rows_of, now)
        if now + needed > deadline:
            raise InfeasibleError(
                f"deadline is in {(deadline - now) * 1e3:.1f} ms, "
                f"an answer would take {needed * 1e3:.1f} ms"
            )

    def enter(self, request: Request) -> None:
        """Counts a request in."""
        entered = self._entered[request.kind]
        entered.add(request.deadline, power_of_two(request.widest), request.rows)
        self.in_flight += request.rows

    def leave(self, request: Request) -> None:
        """Counts a request out that was counted in."""
        entered = self._entered[request.kind]
        entered.remove(request.deadline, power_of_two(request.widest), request.rows)
        self.in_flight -= request.rows

    def _seconds(self, kind: Kind, rows_of: dict[int, int], now: float) -> float:
        """What rows of some widths take at most: each wide one makes a batch of its own wide."""
        total, limit = sum(rows_of.values()), self._max_batch[kind]
        batches, size, seconds = -(-total // limit), min(total, limit), 0.0
        for width in sorted(rows_of, reverse=True):
            wide = min(rows_of[width], batches)
            seconds += wide * self._pace.estimate(kind, size, width, now)
            batches -= wide
            if not batches:
                break
        return seconds
