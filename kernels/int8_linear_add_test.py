"""The 8-bit linear layer and its residual against float64, in the interpreter without a GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import int8_linear_add as op
from kernels.dispatch import forced
from kernels.int8_weight import Int8Weight, quantize_weight
from kernels.matmul_tile import Tile
from kernels.quantize_rows import quantize_rows_reference, quantize_with_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

FEW = Tile(8, 16, 0, warps=4, stages=1)
MORE = Tile(64, 64, 0, warps=8, stages=1)
LOOP = Tile(16, 32, 32, warps=4, stages=3)
TMA = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True)
CONFIGS = (None, FEW, MORE, LOOP, TMA)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _inputs(
    shape: tuple[int, ...], columns: int, dtype: torch.dtype, *, repeats: int = 0
) -> tuple[Tensor, Int8Weight, Tensor]:
    """Rows, weight, and a residual without the first `repeats` dimensions of the rows."""
    torch.manual_seed(0)
    weight = torch.randn(columns, shape[-1]) / max(shape[-1], 1) ** 0.5
    residual = torch.randn(*shape[repeats:-1], columns)
    x = torch.randn(shape).to(DEVICE, dtype)
    return x, quantize_weight(weight.to(DEVICE)), residual.to(DEVICE, dtype)


def _exact(x: Tensor, weight: Int8Weight, residual: Tensor, in_scale: float | None) -> Tensor:
    if in_scale is None:
        q, scale = quantize_rows_reference(x)
        wide = q.double() * scale.double()[..., None]
    else:
        q = x if x.dtype == torch.int8 else quantize_with_reference(x, in_scale)
        wide = q.double() * in_scale
    return residual.double() + wide @ (weight.q_NK.double() * weight.scale_N.double()[:, None]).t()


@pytest.mark.parametrize("shape", [(1, 32), (37, 64), (3, 5, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_scale", [None, 0.02])
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_equals_float64_of_the_quantised_values(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    in_scale: float | None,
    quantised: bool,
    config: Tile | None,
) -> None:
    x, weight, residual = _inputs(shape, 48, dtype)
    if quantised and in_scale is not None:
        x = quantize_with_reference(x, in_scale)
    exact = _exact(x, weight, residual, in_scale)
    # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
    rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (2**-7, 1e-4)
    for rows in (
        op.int8_linear_add_triton(x, weight, residual, in_scale=in_scale, config=config),
        op.int8_linear_add_reference(x, weight, residual, in_scale=in_scale),
    ):
        assert rows.x.dtype == dtype
        assert rows.squares_MP is None
        torch.testing.assert_close(rows.x.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("repeats", [1, 2, 3])
@torch.no_grad()
def test_a_residual_repeats_over_the_dimensions_that_it_lacks(
    config: Tile | None, repeats: int
) -> None:
    x, weight, residual = _inputs((2, 5, 7, 48), 64, torch.float32, repeats=repeats)
    exact = _exact(x, weight, residual, None)
    for rows in (
        op.int8_linear_add_triton(x, weight, residual, config=config),
        op.int8_linear_add_reference(x, weight, residual),
    ):
        torch.testing.assert_close(rows.x.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_the_residual_may_be_written_over(config: Tile | None) -> None:
    x, weight, residual = _inputs((40, 32), 48, torch.float32)
    fresh = op.int8_linear_add_triton(x, weight, residual, config=config).x
    over = op.int8_linear_add_triton(x, weight, residual, config=config, out=residual)
    assert over.x is residual
    assert torch.equal(residual, fresh)


@pytest.mark.parametrize(("shape", "columns"), [((0, 32), 8), ((4, 0, 32), 8), ((4, 32), 0)])
@torch.no_grad()
def test_nothing_gives_nothing(shape: tuple[int, ...], columns: int) -> None:
    inputs = _inputs(shape, columns, torch.float32)
    for form in (op.int8_linear_add_triton, op.int8_linear_add_reference):
        assert form(*inputs).x.shape == (*shape[:-1], columns)


def test_rows_without_their_scale_are_an_error() -> None:
    x, weight, residual = _inputs((4, 32), 8, torch.float32)
    for form in (op.int8_linear_add_triton, op.int8_linear_add_reference):
        with pytest.raises(ValueError, match="in_scale"):
            form(x.to(torch.int8), weight, residual)
        with pytest.raises(ValueError, match="positive"):
            form(x, weight, residual, in_scale=-1.0)


@torch.no_grad()
def test_the_form_is_the_dispatchers() -> None:
    inputs = _inputs((6, 32), 16, torch.float32)
    with forced("triton"):
        fused = op.int8_linear_add(*inputs, in_scale=0.1).x
    with forced("torch"):
        plain = op.int8_linear_add(*inputs, in_scale=0.1).x
    assert torch.equal(fused, op.int8_linear_add_triton(*inputs, in_scale=0.1).x)
    assert torch.equal(plain, op.int8_linear_add_reference(*inputs, in_scale=0.1).x)
