"""How long a batch takes, as measured."""


class ServiceTime:
    """A moving average of batch seconds for each kind of job and each power-of-two batch size.

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
        self._measured: dict[tuple[type, int], tuple[float, float]] = {}

    def record(self, kind: type, size: int, seconds: float, now: float) -> None:
        """Adds one measured batch of `size` jobs that ended at `now`."""
        key = kind, _bucket(size)
        before = self._measured.get(key)
        if before is not None:
            seconds = before[0] + self._weight * (seconds - before[0])
        self._measured[key] = seconds, now

    def estimate(self, kind: type, size: int, now: float) -> float:
        """Seconds that a batch of `size` jobs should take; 0 when nothing recent tells.

        A size never measured is taken to cost what the next smaller one costs, so that the
        estimate errs towards trying.
        """
        bucket = _bucket(size)
        while bucket:
            measured = self._measured.get((kind, bucket))
            if measured is not None and now - measured[1] <= self._stale_s:
                return measured[0]
            bucket //= 2
        return 0.0


def _bucket(size: int) -> int:
    return 1 << (size - 1).bit_length()
