"""A module's forward in bfloat16, while its parameters stay float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def in_bfloat16(module: nn.Module) -> Callable[..., Tensor]:
    """The module's forward on bfloat16 copies of its parameters, made anew at every call.

    Gradients flow back through the copies and reach the float32 parameters as float32. This is what
    FSDP's mixed precision computes, for a process that has nobody to share with: it needs no
    process group, and a CUDA graph can capture it.
    """
    parameters = dict(module.named_parameters())

    def forward(*args: Any) -> Tensor:
        copies = {name: p.to(torch.bfloat16) for name, p in parameters.items()}
        output: Tensor = torch.func.functional_call(module, copies, args)
        return output

    return forward
