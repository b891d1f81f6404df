"""Programmatic dependent launch: a kernel starts while the one before it still runs.

In a chain of short kernels a good part of the time goes by between the last store of one and the
first load of the next. On Hopper a kernel may be launched before the one it depends on has ended,
set itself up, load what no kernel writes, such as weights, and only then wait. Inside a CUDA graph
the launches become edges of that kind.

A kernel that is launched so calls `wait_for_inputs` before it reads or writes anything that another
kernel of the stream touches. As every kernel waits for the whole of the one before, and that one
did too, nothing older can still be running. What such a kernel and older ones wrote it may read
before it waits only behind one that let others start by `launch_settled`: without that, all of them
may still be waiting for each other.

Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_HOPPER = (9, 0)


def launch_options(tensor: Tensor) -> dict[str, Any]:
    """Arguments of a kernel's launch: the constant PDL, and the launch's own option where it is on.

    Args:
        tensor: one of the kernel's inputs.
    """
    if tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) >= _HOPPER:
        return {"PDL": True, "launch_pdl": True}
    return {"PDL": False}


@triton.jit  # type: ignore[untyped-decorator]
def wait_for_inputs(PDL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Lets the next kernel start, and waits for the one before to end."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit  # type: ignore[untyped-decorator]
def launch_settled(PDL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Lets the next kernel start, with all that this one has written in memory.

    Of a kernel that has waited for its inputs and lets others start with this alone, any later
    kernel may read what it and older ones wrote without waiting, though past the L1 cache.
    """
    if PDL:
        tl.inline_asm_elementwise(
            "fence.acq_rel.gpu; mov.u32 $0, 0;",
            "=r",
            [],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
        # The first thread of a program that lets others start does so for all.
        tl.debug_barrier()
        gdc_launch_dependents()
