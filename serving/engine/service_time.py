"""How long a batch takes, as measured."""

import math

from cortex.power_of_two import power_of_two
from serving.engine.jobs import Kind

_NOT_FOUND = 0.0, -math.inf


class ServiceTime:
    """A moving average of batch seconds for each bucket.

    A bucket is a kind, a power of two of rows and a power of two of events of the fullest row.
    The model thread records and the host's thread reads; each entry is replaced whole, so no lock
    is needed. An average that has not been refreshed for `stale_s` is not used: otherwise one slow
    batch could make everything look infeasible, and nothing would run to correct it.
    """

    def __init__(self, *, weight: float = 0.2, stale_s: float = 1.0) -> None:
        """Begins with nothing measured.

        Args:
            weight: of the newest measurement in the average, in (0, 1].
            stale_s: age in seconds at which an average is no longer used.
        """
        self._weight = weight
        self._stale_s = stale_s
        self._measured: dict[tuple[Kind, int, int], tuple[float, float]] = {}
        # Estimates since the last measurement, and until when each is good.
        self._found: dict[tuple[Kind, int, int], tuple[float, float]] = {}

    def record(self, kind: Kind, rows: int, events: int, seconds: float, now: float) -> None:
        """Adds one measured batch that ended at `now`."""
        key = kind, power_of_two(rows), power_of_two(events)
        before = self._measured.get(key)
        if before is not None:
            seconds = before[0] + self._weight * (seconds - before[0])
        self._measured[key] = seconds, now
        self._found = {}

    def estimate(self, kind: Kind, rows: int, events: int, now: float) -> float:
        """Seconds that a batch should take; 0 when nothing recent tells.

        A bucket never measured is taken to cost what the next narrower one costs, or else the
        next smaller, so that the estimate errs towards trying.
        """
        key = kind, power_of_two(rows), power_of_two(events)
        seconds, until = self._found.get(key, _NOT_FOUND)
        if now > until:
            seconds, until = self._found[key] = self._find(*key, now)
        return seconds

    def become(self, other: "ServiceTime") -> None:
        """Takes over what another has measured, of a model that takes this one's place."""
        self._measured, self._found = dict(other._measured), {}

    def _find(self, kind: Kind, rows: int, events: int, now: float) -> tuple[float, float]:
        """The estimate, and until when it may be used if nothing else is measured."""
        while rows:
            width = events
            while width:
                seconds, at = self._measured.get((kind, rows, width), (0.0, -math.inf))
                if now <= at + self._stale_s:
                    return seconds, at + self._stale_s
                width >>= 1
            rows >>= 1
        return 0.0, math.inf
