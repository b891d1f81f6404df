"""Kernels in Gluon compiled for Hopper where there is no GPU, as a launch would have them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# What a program can have of a multiprocessor's shared memory.
SHARED_BYTES = 227 * 1024
_TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int8: "i8"}
_OPTIONS = ("num_warps", "maxnreg", "launch_pdl")


@contextmanager
def launches_compile(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Inside, a launch only compiles; gives the list of what was compiled."""
    made: list[Any] = []

    def run(kernel: GluonJITFunction, *given: Any, grid: Any, warmup: bool, **named: Any) -> None:
        made.append(_compiled(kernel, given, named))

    with monkeypatch.context() as patched:
        patched.setattr(GluonJITFunction, "run", run)
        yield made


def check_compiles(launch: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a launch's kernel is one of Hopper's matrix instructions, and has room there."""
    with launches_compile(monkeypatch) as made:
        launch()
    (kernel,) = made
    assert "wgmma.mma_async" in kernel.asm["ptx"]
    assert kernel.metadata.shared <= SHARED_BYTES


def _compiled(kernel: GluonJITFunction, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    options = {name: named.pop(name) for name in _OPTIONS if name in named}
    values = dict(zip(kernel.arg_names, given, strict=False)) | named
    signature, constants = {}, {}
    for place, (name, value) in enumerate(values.items()):
        match value:
            case TensorDescriptor():
                block = f"{_TYPES[value.base.dtype]}{list(value.block_shape)}"
                signature[name] = f"tensordesc<{block},{value.layout!r}>"
            case Tensor():
                signature[name] = f"*{_TYPES[value.dtype]}"
            case float():
                signature[name] = "fp32"
            case int() if name not in named:
                signature[name] = "i32"
            case _:
                signature[name] = "constexpr"
                constants[(place,)] = value
    source = GluonASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
