"""Which form of an operator runs: plain PyTorch, or its Triton kernel.

Kernels have no gradients, so that training runs in plain PyTorch, and so does a CPU. On a GPU an
operator runs its kernel where that wins, which its own module says, with the measured table as the
reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Form = Literal["torch", "triton"]

_forced: list[Form] = []


def form_for(tensor: Tensor, *, wins: bool = True) -> Form:
    """The form that an operator on this tensor takes.

    Args:
        tensor: one of the operator's inputs.
        wins: whether the kernel is the faster one at these shapes.
    """
    if _forced:
        return _forced[-1]
    serves = tensor.is_cuda and not torch.is_grad_enabled()
    return "triton" if serves and wins else "torch"


@contextmanager
def forced(form: Form) -> Iterator[None]:
    """Inside, every operator of this process takes this form: for tests and benchmarks."""
    _forced.append(form)
    try:
        yield
    finally:
        _forced.pop()
