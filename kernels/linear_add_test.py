"""The linear layer with its residual against float64, in Triton's interpreter without a GPU."""

import os

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import linear_add as op
from kernels.dispatch import forced
from kernels.norm_linear import Tile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SMALL = Tile(16, 32, 32, warps=4, stages=3)
TMA = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True)
# The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2**-7, 1e-4)}


def _inputs(shape: tuple[int, ...], columns: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(columns, shape[-1]) / shape[-1] ** 0.5
    inputs = torch.randn(shape), weight, torch.randn(*shape[:-1], columns)
    return [t.to(DEVICE, dtype) for t in inputs]


@pytest.mark.parametrize("shape", [(1, 32), (70, 96), (3, 5, 40), (33, 21)])
@pytest.mark.parametrize("columns", [1, 80])
@pytest.mark.parametrize("config", [None, SMALL, TMA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_equals_the_reference_in_float64(
    shape: tuple[int, ...], columns: int, config: Tile | None, dtype: torch.dtype
) -> None:
    inputs = _inputs(shape, columns, dtype)
    out = torch.full_like(inputs[2], torch.nan)
    op.linear_add_triton(*inputs, config=config, out=out)
    exact = op.linear_add_reference(*(t.double() for t in inputs))
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(out.double(), exact, rtol=rtol, atol=atol)


@torch.no_grad()
def test_the_residual_may_be_written_over() -> None:
    x, weight, residual = _inputs((40, 32), 48, torch.float32)
    fresh = op.linear_add_triton(x, weight, residual)
    assert torch.equal(op.linear_add_triton(x, weight, residual, out=residual), fresh)
    assert torch.equal(residual, fresh)


@pytest.mark.parametrize(("shape", "columns"), [((0, 32), 8), ((4, 0, 32), 8), ((4, 32), 0)])
@torch.no_grad()
def test_nothing_gives_nothing(shape: tuple[int, ...], columns: int) -> None:
    out = op.linear_add_triton(*_inputs(shape, columns, torch.float32))
    assert out.shape == (*shape[:-1], columns)


def test_what_does_not_fit_is_an_error() -> None:
    x, weight, residual = _inputs((4, 32), 8, torch.float32)
    with pytest.raises(ValueError, match="residual"):
        op.linear_add_triton(x, weight, residual[:1])
    with pytest.raises(ValueError, match="float16"):
        op.linear_add_triton(x, weight.half(), residual)
    with pytest.raises(ValueError, match="contiguous in K"):
        op.linear_add_triton(x, torch.empty(32, 8, device=DEVICE).t(), residual)


@torch.no_grad()
def test_the_form_is_the_dispatchers() -> None:
    inputs = _inputs((6, 32), 16, torch.float32)
    with forced("triton"):
        assert torch.equal(op.linear_add(*inputs), op.linear_add_triton(*inputs))
    with forced("torch"):
        assert torch.equal(op.linear_add(*inputs), op.linear_add_reference(*inputs))


def test_gradients_take_the_reference() -> None:
    x, weight, residual = _inputs((6, 32), 16, torch.float32)
    op.linear_add(x, weight.requires_grad_(), residual).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
