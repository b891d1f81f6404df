"""How long work takes on a GPU, launches of Python left out.

The work is captured as a CUDA graph and replayed between events. Warm, its inputs lie in the L2
cache where they fit, as in a loop over one batch; cold, the cache is overwritten before every
replay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

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
    graph = _captured(work, copies)
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


def _captured(work: Callable[[], object], copies: int) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(copies):
            work()
    return graph
