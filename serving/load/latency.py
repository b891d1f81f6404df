"""Percentiles of latencies, in which what was never answered counts as endlessly late."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64] | npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles in milliseconds, each a latency that was measured (nearest rank).

    Attributes:
        p50_ms: half are not slower.
        p95_ms: 95% are not slower.
        p99_ms: 99% are not slower. Infinite where more than 1% were not answered.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Seconds) -> "Latency":
        """The percentiles of latencies in seconds; not a number of none."""
        if not len(seconds):
            return cls(p50_ms=math.nan, p95_ms=math.nan, p99_ms=math.nan)
        ranks = [math.ceil(len(seconds) * percent / 100) - 1 for percent in (50, 95, 99)]
        p50, p95, p99 = np.partition(seconds, ranks)[ranks].tolist()
        return cls(p50_ms=p50 * 1e3, p95_ms=p95 * 1e3, p99_ms=p99 * 1e3)

    def __str__(self) -> str:
        """The percentiles, for a line of a report."""
        return f"p50 {self.p50_ms:.3g} ms, p95 {self.p95_ms:.3g} ms, p99 {self.p99_ms:.3g} ms"
