"""The 8-bit norm and linear layer against float64, in Triton's interpreter without a GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import int8_norm_linear as op
from kernels.dispatch import forced
from kernels.int8_weight import Int8Weight, quantize_weight
from kernels.linear_add import Rows
from kernels.matmul_tile import Tile
from kernels.norm_linear import Activation, norm_linear_reference
from kernels.quantize_rows import quantize_rows_reference
from kernels.turn import Turn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6
FEW = Tile(8, 16, 0, warps=4, stages=1)
MORE = Tile(64, 64, 0, warps=8, stages=1)
LOOP = Tile(16, 32, 32, warps=4, stages=3)
RESIDENT = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True, resident=3)
CONFIGS = (None, FEW, MORE, LOOP, RESIDENT)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _inputs(
    shape: tuple[int, ...], columns: int, dtype: torch.dtype = torch.float32
) -> tuple[Rows, Int8Weight]:
    torch.manual_seed(0)
    # Rows of very different sizes: the norm must take each by its own.
    x = torch.randn(shape) * torch.logspace(-2, 2, shape[-2])[:, None]
    weight = torch.randn(columns, shape[-1]) / max(shape[-1], 1) ** 0.5
    return Rows(x.to(DEVICE, dtype)), quantize_weight(weight.to(DEVICE))


def _turn(columns: int) -> Turn:
    angle = 6.28 * torch.rand(3, 8, device=DEVICE)
    return Turn(angle.cos(), angle.sin(), 4, columns)


def _exact(x: Rows, weight: Int8Weight, *args: Any, **options: Any) -> Tensor:
    """What the float layer makes of the values that the 8-bit ones stand for."""
    q, scale = quantize_rows_reference(x.x)
    mean_square = x.x.double().square().mean(-1, keepdim=True)
    normed = q.double() * scale.double()[..., None] / (mean_square + EPS).sqrt()
    wide = weight.q_NK.double() * weight.scale_N.double()[:, None]
    # Rows that are normed already, but for what rounding them has changed.
    restored = normed.square().mean(-1, keepdim=True).sqrt()
    return norm_linear_reference(normed, wide, None, 0.0, *args, **options) * restored


@pytest.mark.parametrize("shape", [(1, 32), (37, 64), (3, 5, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_equals_float64_of_the_quantised_values(
    shape: tuple[int, ...], dtype: torch.dtype, turns: bool, config: Tile | None
) -> None:
    x, weight = _inputs(shape, 48, dtype)
    turn = _turn(32) if turns else None
    exact = _exact(x, weight, turn=turn)
    # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
    rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (2**-7, 1e-4)
    for y in (
        op.int8_norm_linear_triton(x, weight, EPS, turn=turn, config=config),
        op.int8_norm_linear_reference(x, weight, EPS, turn=turn),
    ):
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("out_scale", [None, 0.02])
@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_kernels_equal_the_plain_form(
    activation: Activation | None, out_scale: float | None, config: Tile | None
) -> None:
    x, weight = _inputs((37, 96), 48, torch.bfloat16)
    ours = op.int8_norm_linear_triton(
        x, weight, EPS, activation, out_scale=out_scale, config=config
    )
    plain = op.int8_norm_linear_reference(x, weight, EPS, activation, out_scale=out_scale)
    assert ours.dtype == plain.dtype == (torch.bfloat16 if out_scale is None else torch.int8)
    # A GPU's own tanh is good to 2^-11; next to a half, that is a step of the 8-bit result.
    rtol, atol = (2**-7, 2e-3) if out_scale is None else (0.0, 1.0)
    torch.testing.assert_close(ours.double(), plain.double(), rtol=rtol, atol=atol)
    if out_scale is not None:
        assert (ours == plain).double().mean() > 0.95
        assert (plain.abs() == 127).any() or activation


@torch.no_grad()
def test_stays_close_to_the_layer_that_it_stands_for() -> None:
    x, _ = _inputs((24, 128), 1)
    weight = torch.randn(32, 128, device=DEVICE)
    exact = norm_linear_reference(x.x, weight, None, EPS)
    y = op.int8_norm_linear(x, quantize_weight(weight), EPS)
    assert (y - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("config", [FEW, LOOP])
@torch.no_grad()
def test_rows_of_zeros_give_zeros(config: Tile) -> None:
    x, weight = _inputs((5, 32), 16)
    y = op.int8_norm_linear_triton(Rows(torch.zeros_like(x.x)), weight, EPS, config=config)
    assert not y.any()


@pytest.mark.parametrize(("shape", "columns"), [((0, 32), 8), ((4, 0, 32), 8), ((4, 32), 0)])
@torch.no_grad()
def test_nothing_gives_nothing(shape: tuple[int, ...], columns: int) -> None:
    x, weight = _inputs(shape, columns)
    for form in (op.int8_norm_linear_triton, op.int8_norm_linear_reference):
        assert form(x, weight, EPS).shape == (*shape[:-1], columns)


@torch.no_grad()
def test_the_form_is_the_dispatchers() -> None:
    x, weight = _inputs((6, 32), 16)
    with forced("triton"):
        fused = op.int8_norm_linear(x, weight, EPS, "gelu")
    with forced("torch"):
        plain = op.int8_norm_linear(x, weight, EPS, "gelu")
    assert torch.equal(fused, op.int8_norm_linear_triton(x, weight, EPS, "gelu"))
    assert torch.equal(plain, op.int8_norm_linear_reference(x, weight, EPS, "gelu"))
