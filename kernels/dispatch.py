"""Which form of an operator runs: plain PyTorch, or its Triton kernel.

Kernels have no gradients, so that training runs in plain PyTorch, and so does a CPU. On a GPU an
operator runs its kernel where that wins, which its own module says, with the measured table as the
reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

Form = Literal["torch", "triton"]

_forced: ContextVar[Form | None] = ContextVar("forced_form", default=None)


def form_for(tensor: Tensor, *, wins: bool = True) -> Form:
    """The form that an operator on this tensor takes.

    Args:
        tensor: one of the operator's inputs.
        wins: whether the kernel is the faster one at these shapes.
    """
    forced = _forced.get()
    if forced is not None:
        return forced
    serves = tensor.is_cuda and not torch.is_grad_enabled()
    return "triton" if serves and wins else "torch"


@contextmanager
def forced(form: Form) -> Iterator[None]:
    """Inside, every operator takes this form: for tests and benchmarks."""
    token = _forced.set(form)
    try:
        yield
    finally:
        _forced.reset(token)
