"""Captures work on a GPU as a CUDA graph: one launch instead of dozens.

Source: CUDA graphs in PyTorch, https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from collections.abc import Callable
from typing import Any

import torch

WARM_UPS = 3


def capture(
    work: Callable[[], object], *, pool: Any = None, warm_ups: int = WARM_UPS
) -> torch.cuda.CUDAGraph:
    """A graph that does again what the work does when it is called.

    Args:
        work: fixed shapes, no waiting for the device.
        pool: memory that graphs share which never run at the same time.
        warm_ups: calls before the capture, in which kernels are compiled.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads of the process may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        work()
    return graph
