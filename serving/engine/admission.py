"""Which requests may enter the queue."""

from bisect import bisect_left, bisect_right

from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Kind
from serving.engine.service_time import ServiceTime


class _Entered:
    """The requests of one kind that are in flight, by deadline."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []
        self.rows: list[int] = []
        self.events: list[int] = []


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

    def check(self, kind: Kind, *, rows: int, events: int, deadline: float, now: float) -> None:
        """Raises BusyError or InfeasibleError if a request may not enter.

        Args:
            kind: what its batches are made of.
            rows: windows or steps in it.
            events: events of the fullest of them.
            deadline: on the engine's clock.
            now: on the same clock.
        """
        if self.in_flight + rows > self._max_queue:
            raise BusyError(
                f"{self.in_flight} windows and steps are in flight, and at most "
                f"{self._max_queue} are allowed with the {rows} asked for"
            )
        needed = 0.0
        for each, entered in self._entered.items():
            ahead = bisect_right(entered.deadlines, deadline)
            mine = each is kind
            if not (ahead or mine):
                continue
            total = sum(entered.rows[:ahead]) + (rows if mine else 0)
            widest = max(entered.events[:ahead], default=0)
            if mine and events > widest:
                widest = events
            limit = self._max_batch[each]
            full, rest = divmod(total, limit)
            if full:
                needed += full * self._service_time.estimate(each, limit, widest, now)
            if rest:
                needed += self._service_time.estimate(each, rest, widest, now)
        if now + needed > deadline:
            raise InfeasibleError(
                f"deadline is in {(deadline - now) * 1e3:.1f} ms, "
                f"an answer would take {needed * 1e3:.1f} ms"
            )

    def enter(self, kind: Kind, *, rows: int, events: int, deadline: float) -> None:
        """Counts a request in."""
        entered = self._entered[kind]
        at = bisect_right(entered.deadlines, deadline)
        entered.deadlines.insert(at, deadline)
        entered.rows.insert(at, rows)
        entered.events.insert(at, events)
        self.in_flight += rows

    def leave(self, kind: Kind, *, rows: int, events: int, deadline: float) -> None:
        """Counts a request out. Arguments as it was counted in with."""
        entered = self._entered[kind]
        at = bisect_left(entered.deadlines, deadline)
        while (entered.rows[at], entered.events[at]) != (rows, events):
            at += 1
        for column in (entered.deadlines, entered.rows, entered.events):
            del column[at]
        self.in_flight -= rows
