"""How long work takes on a GPU, with or without the launches of Python.

Without, the work is captured as a CUDA graph and replayed between events. Warm, its inputs lie in
the L2 cache where they fit, as in a loop over one batch; cold, the cache is overwritten before
every replay.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kernels.cuda_graph import WARM_UPS, capture

# More than the L2 cache of any GPU.
FLUSH_BYTES = 256 * 2**20
# A warm graph holds the work so often, since an event's own cost is some microseconds.
WARM_COPIES = 8


@dataclass(frozen=True, kw_only=True)
class GpuTime:
    """Milliseconds of one call."""

    median: float
    p99: float


def gpu_time(work: Callable[[], object], *, cold: bool = False, repeats: int = 60) -> GpuTime:
    """Times work that may be captured: fixed shapes, no waiting for the device.

    Args:
        work: what to time.
        cold: overwrite the L2 cache before every call.
        repeats: timed replays.
    """
    copies = 1 if cold else WARM_COPIES
    graph = capture(lambda: [work() for _ in range(copies)])
    flush = torch.empty(FLUSH_BYTES if cold else 1, dtype=torch.int8, device="cuda")
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(repeats)] for _ in "ab")
    graph.replay()
    for start, end in zip(starts, ends, strict=True):
        flush.zero_()
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    times = [s.elapsed_time(e) / copies for s, e in zip(starts, ends, strict=True)]
    return GpuTime(median=float(np.median(times)), p99=float(np.percentile(times, 99)))


def eager_time(work: Callable[[], object], *, repeats: int = 30) -> GpuTime:
    """Times work as Python launches it, from the call to the end on the device."""
    times = []
    for _ in range(WARM_UPS + repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    kept = times[WARM_UPS:]
    return GpuTime(median=float(np.median(kept)), p99=float(np.percentile(kept, 99)))
