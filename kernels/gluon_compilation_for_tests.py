"""Kernels in Gluon compiled for Hopper where there is no GPU, as a launch would have them."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# What a program can have of a multiprocessor's shared memory.
_SHARED_BYTES = 227 * 1024
_TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int8: "i8"}
_OPTIONS = ("num_warps", "maxnreg", "launch_pdl")


def check_compiles(launch: Callable[[], object]) -> None:
    """Whether a launch's kernel is made of Hopper's matrix instructions, and has room there."""
    made: list[Any] = []

    def run(kernel: GluonJITFunction, *given: Any, grid: Any, warmup: bool, **named: Any) -> None:
        made.append(_compiled(kernel, given, named))

    with patch.object(GluonJITFunction, "run", run):
        launch()
    (kernel,) = made
    assert "wgmma.mma_async" in kernel.asm["ptx"]
    assert kernel.metadata.shared <= _SHARED_BYTES


def _compiled(kernel: GluonJITFunction, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    options = {name: named.pop(name) for name in _OPTIONS if name in named}
    values = dict(zip(kernel.arg_names, given, strict=False)) | named
    signature, constants = {}, {}
    for place, parameter in enumerate(kernel.params):
        name, value = parameter.name, values[parameter.name]
        match value:
            case TensorDescriptor():
                block = f"{_TYPES[value.base.dtype]}{list(value.block_shape)}"
                signature[name] = f"tensordesc<{block},{value.layout!r}>"
            case Tensor():
                signature[name] = f"*{_TYPES[value.dtype]}"
            case float():
                signature[name] = "fp32"
            case int() if not parameter.is_constexpr:
                signature[name] = "i32"
            case _:
                signature[name] = "constexpr"
                constants[(place,)] = value
    source = GluonASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
