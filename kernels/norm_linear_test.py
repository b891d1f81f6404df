"""The fused norm and linear layer against float64, in Triton's interpreter where is no GPU."""

import os

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import norm_linear as op
from kernels.dispatch import forced

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6

# Rows summed in the loop; rows scaled by the first kernel; the same, loaded by the TMA.
IN_LOOP = op.Tile(16, 32, 32, warps=4, stages=3)
SCALED = op.Tile(64, 32, 32, warps=4, stages=3, group=2)
TMA = op.Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True)
# The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2**-7, 1e-4)}


def _inputs(shape: tuple[int, ...], columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    # Rows of very different sizes: the norm must take each by its own.
    size = torch.logspace(-2, 2, shape[-2])[:, None]
    x = torch.randn(shape) * size
    weight = torch.randn(columns, shape[-1]) / max(shape[-1], 1) ** 0.5
    return x.to(DEVICE, dtype), weight.to(DEVICE, dtype)


def _check(
    x: Tensor,
    weight: Tensor,
    activation: op.Activation | None = None,
    config: op.Tile | None = None,
) -> None:
    out = torch.full((*x.shape[:-1], len(weight)), torch.nan, device=x.device, dtype=x.dtype)
    fused = op.norm_linear_triton(x, weight, None, EPS, activation, config=config, out=out)
    exact = op.norm_linear_reference(x.double(), weight.double(), None, EPS, activation)
    rtol, atol = TOLERANCE[x.dtype]
    torch.testing.assert_close(fused.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("config", [None, IN_LOOP, SCALED, TMA])
@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_equals_the_reference_in_float64(
    config: op.Tile | None, activation: op.Activation | None, dtype: torch.dtype
) -> None:
    _check(*_inputs((70, 96), 80, dtype), activation, config)


@pytest.mark.parametrize("shape", [(1, 32), (3, 5, 40), (2, 2, 9, 72), (33, 21)])
@pytest.mark.parametrize("columns", [1, 33])
@pytest.mark.parametrize("config", [None, SCALED, TMA])
@torch.no_grad()
def test_odd_shapes(shape: tuple[int, ...], columns: int, config: op.Tile | None) -> None:
    _check(*_inputs(shape, columns, torch.bfloat16), config=config)


@pytest.mark.parametrize("config", [None, TMA])
@pytest.mark.parametrize("first", [0, 3])
@torch.no_grad()
def test_rows_may_be_part_of_wider_ones(config: op.Tile | None, first: int) -> None:
    x, weight = _inputs((20, 64), 16, torch.bfloat16)
    wide = torch.full((20, 80), torch.nan, device=DEVICE, dtype=x.dtype)
    view = wide[:, first : first + 64]
    view.copy_(x)
    _check(view, weight, config=config)


@pytest.mark.parametrize(("shape", "columns"), [((0, 32), 8), ((4, 0, 32), 8), ((4, 32), 0)])
@torch.no_grad()
def test_nothing_gives_nothing(shape: tuple[int, ...], columns: int) -> None:
    x, weight = torch.zeros(shape, device=DEVICE), torch.zeros(columns, 32, device=DEVICE)
    assert op.norm_linear_triton(x, weight, None, EPS).shape == (*shape[:-1], columns)


@torch.no_grad()
def test_rows_of_zeros_give_zeros() -> None:
    x, weight = _inputs((18, 32), 16, torch.bfloat16)
    for config in (IN_LOOP, SCALED):
        out = op.norm_linear_triton(torch.zeros_like(x), weight, None, EPS, config=config)
        assert not out.any()


@torch.no_grad()
def test_folding_keeps_the_layer() -> None:
    x, weight = _inputs((12, 32), 24, torch.float32)
    gamma = torch.randn(32, device=DEVICE)
    folded = op.norm_linear_triton(x, op.fold(weight, gamma), None, EPS)
    exact = op.norm_linear_reference(x.double(), weight.double(), gamma.double(), EPS)
    torch.testing.assert_close(folded.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_gain_that_is_not_folded_is_an_error() -> None:
    x, weight = _inputs((4, 32), 8, torch.float32)
    with pytest.raises(ValueError, match="fold"):
        op.norm_linear_triton(x, weight, torch.ones(32, device=DEVICE), EPS)


def test_layouts_that_do_not_fit_are_errors() -> None:
    x, weight = _inputs((4, 32), 8, torch.float32)
    with pytest.raises(ValueError, match="float16"):
        op.norm_linear_triton(x, weight.half(), None, EPS)
    with pytest.raises(ValueError, match="contiguous in D"):
        op.norm_linear_triton(x, torch.empty(32, 8, device=DEVICE).t(), None, EPS)
    with pytest.raises(ValueError, match="out"):
        op.norm_linear_triton(x, weight, None, EPS, out=x)


@torch.no_grad()
def test_the_form_is_the_dispatchers() -> None:
    x, weight = _inputs((6, 32), 16, torch.float32)
    with forced("triton"):
        fused = op.norm_linear(x, weight, None, EPS, "gelu")
    with forced("torch"):
        plain = op.norm_linear(x, weight, None, EPS, "gelu")
    assert torch.equal(fused, op.norm_linear_triton(x, weight, None, EPS, "gelu"))
    assert torch.equal(plain, op.norm_linear_reference(x, weight, None, EPS, "gelu"))


def test_gradients_take_the_reference() -> None:
    x, weight = _inputs((6, 32), 16, torch.float32)
    op.norm_linear(x, weight.requires_grad_(), None, EPS).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("columns", [768, 1536, 2048, 3072])
def test_more_rows_never_take_smaller_tiles(columns: int) -> None:
    tiles = [op.tile_for(rows, columns, 512) for rows in (8, 264, 1056, 8448, 32768)]
    sizes = [tile.m * tile.n for tile in tiles]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
