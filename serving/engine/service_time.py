"""How long a batch takes, as measured."""

from serving.engine.jobs import Kind


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

    def record(self, kind: Kind, rows: int, events: int, seconds: float, now: float) -> None:
        """Adds one measured batch that ended at `now`."""
        key = kind, _bucket(rows), _bucket(events)
        before = self._measured.get(key)
        if before is not None:
            seconds = before[0] + self._weight * (seconds - before[0])
        self._measured[key] = seconds, now

    def estimate(self, kind: Kind, rows: int, events: int, now: float) -> float:
        """Seconds that a batch should take; 0 when nothing recent tells.

        A bucket never measured is taken to cost what the next narrower one costs, or else the
        next smaller, so that the estimate errs towards trying.
        """
        measured = self._measured
        row_bucket = _bucket(rows)
        while row_bucket:
            bucket = _bucket(events)
            while bucket:
                found = measured.get((kind, row_bucket, bucket))
                if found is not None and now - found[1] <= self._stale_s:
                    return found[0]
                bucket >>= 1
            row_bucket >>= 1
        return 0.0

    def become(self, other: "ServiceTime") -> None:
        """Takes over what another has measured, of a model that takes this one's place."""
        self._measured = other._measured


def _bucket(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()
