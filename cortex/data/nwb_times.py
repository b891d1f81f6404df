"""Seconds of an NWB file as integer bins."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from cortex.events import IntArray
from cortex.time_grid import TimeGrid

# From here on float64 no longer holds every whole microsecond, and bins would not be exact.
LATEST_S = 2**53 / 1e6


def read_seconds(values: Any, what: str, path: Path) -> npt.NDArray[np.float64]:
    """Moments that bins can count. Raises InputError on the first that they cannot."""
    seconds = np.asarray(values, np.float64)
    bad = np.flatnonzero(~(np.abs(seconds) < LATEST_S))
    if len(bad):
        raise InputError(
            f"{path}: {what} is {seconds[bad[0]]} s at index {bad[0]}, "
            f"expected numbers below {LATEST_S:.1e}"
        )
    return seconds


def to_bins(seconds: npt.NDArray[np.float64], grid: TimeGrid) -> IntArray:
    """Bin of each moment. Whole microseconds first: 0.035 s is in bin 7 of 5 ms, not in bin 6."""
    return np.round(np.asarray(seconds, np.float64) * 1e6).astype(np.int64) // grid.bin_us


def within(
    seconds: npt.NDArray[np.float64], spans: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Whether each moment (n,) lies in a span (k, 2), ends included. Spans may overlap."""
    begun = np.searchsorted(np.sort(spans[:, 0]), seconds, side="right")
    ended = np.searchsorted(np.sort(spans[:, 1]), seconds, side="left")
    return begun > ended
