"""How much of the copies to a GPU ran while it computed another batch."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TraceEvent = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Copies from the host to the device.

    Attributes:
        copies: how many.
        copy_us: microseconds that they took in all.
        overlapped_us: of those, in which a kernel ran on another stream. A batch's own kernels wait
            for its copy, so it was another batch's.
    """

    copies: int
    copy_us: float
    overlapped_us: float

    @property
    def share(self) -> float:
        """Of the copies' time, in [0, 1]; 0 where there were none."""
        return self.overlapped_us / self.copy_us if self.copies else 0.0


def traced(work: Callable[[], object], path: Path) -> Overlap:
    """Runs something under torch's profiler, and keeps what the GPU did.

    Args:
        work: uses the GPU, on any thread.
        path: where the trace is written, a gzipped Chrome trace, ending in `.json.gz`.
    """
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(path))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return overlap_of(json.load(file)["traceEvents"])


def overlap_of(events: Iterable[TraceEvent]) -> Overlap:
    """The overlap in the events of a Chrome trace, with times in microseconds."""
    copies: dict[int, list[tuple[float, float]]] = {}
    kernels: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        of = {"gpu_memcpy": copies, "kernel": kernels}.get(event.get("cat", ""))
        if of is copies and "HtoD" not in event["name"]:
            continue
        if of is not None:
            span = event["ts"], event["ts"] + event["dur"]
            of.setdefault(event["args"]["stream"], []).append(span)
    count, copy_us, overlapped_us = 0, 0.0, 0.0
    for stream, spans in copies.items():
        others = [span for other in kernels if other != stream for span in kernels[other]]
        start, stop = np.array(spans).T
        count += len(spans)
        copy_us += float((stop - start).sum())
        overlapped_us += float((_covered(others, stop) - _covered(others, start)).sum())
    return Overlap(copies=count, copy_us=copy_us, overlapped_us=overlapped_us)


def _covered(
    spans: list[tuple[float, float]], until: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """How much of the time up to each moment lies in any of the spans."""
    if not spans:
        return np.zeros(len(until))
    start, stop = np.array(sorted(spans)).T
    # Each span counts from where those before have ended.
    before = np.concatenate([[-np.inf], np.maximum.accumulate(stop)[:-1]])
    start = np.maximum(start, before)
    length = np.maximum(stop - start, 0)
    start, length = start[length > 0], length[length > 0]
    total = np.concatenate([[0.0], np.cumsum(length)])
    after = start.searchsorted(until, "right")
    last = np.maximum(after - 1, 0)
    part = np.minimum(until - start[last], length[last])
    return np.where(after > 0, total[last] + part, 0.0)
