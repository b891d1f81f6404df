"""The fused norm and linear layer against float64, in Triton's interpreter where is no GPU."""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import norm_linear as op
from kernels.dispatch import forced
from kernels.matmul_tile import Tile
from kernels.rotary import rotate
from kernels.turn import Turn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6

# The whole depth in one step: in parts, with the weight on the right, and on the left.
PARTS = Tile(16, 16, 128, warps=4, stages=1)
WHOLE = Tile(64, 32, 128, warps=4, stages=1)
SWAPPED = Tile(16, 64, 128, warps=4, stages=1)
# In a loop: plain, by the TMA, and fewer programs than tiles.
LOOP = Tile(64, 32, 32, warps=4, stages=3, group=2)
TMA = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True)
RESIDENT = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True, resident=3)
CONFIGS = (None, PARTS, WHOLE, SWAPPED, LOOP, TMA, RESIDENT)
# The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2**-7, 1e-4)}
# The interpreter multiplies either as float32.
TURN_TYPES = [torch.float32, torch.bfloat16] if DEVICE == "cuda" else [torch.float32]
# A GPU's own tanh is good to 2^-11, and is multiplied by up to half the largest input.
FAST_GELU = (2**-7, 2e-3)


def _inputs(shape: tuple[int, ...], columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    # Rows of very different sizes: the norm must take each by its own.
    size = torch.logspace(-2, 2, shape[-2])[:, None]
    x = torch.randn(shape) * size
    weight = torch.randn(columns, shape[-1]) / max(shape[-1], 1) ** 0.5
    return x.to(DEVICE, dtype), weight.to(DEVICE, dtype)


def _squares(x: Tensor, parts: int) -> Tensor:
    rows = x.double().square().reshape(-1, x.shape[-1])
    return torch.stack([part.sum(-1) for part in rows.chunk(parts, -1)], -1).float()


def _turn(phases: int, rows: int, columns: int, head: int) -> Turn:
    torch.manual_seed(1)
    angle = torch.rand(phases, head // 2, dtype=torch.float64) * 6.28
    cos, sin = (f(angle).float().to(DEVICE) for f in (torch.cos, torch.sin))
    return Turn(cos, sin, rows, columns)


def _turned(y_MN: Tensor, turn: Turn) -> Tensor:
    """By the definition, row after row."""
    head = 2 * turn.cos_TK.shape[1]
    y = y_MN.reshape(-1, y_MN.shape[-1]).clone()
    for m in range(len(y)):
        t = m // turn.rows % len(turn.cos_TK)
        heads = y[m, : turn.columns].unflatten(-1, (-1, head))
        y[m, : turn.columns] = rotate(heads, (turn.cos_TK[t], turn.sin_TK[t])).flatten()
    return y.view(y_MN.shape)


def _check(
    x: Tensor,
    weight: Tensor,
    activation: op.Activation | None = None,
    config: Tile | None = None,
    squares: Tensor | None = None,
    turn: Turn | None = None,
) -> None:
    out = torch.full((*x.shape[:-1], len(weight)), torch.nan, device=x.device, dtype=x.dtype)
    fused = op.norm_linear_triton(
        x, weight, None, EPS, activation, squares_MP=squares, turn=turn, config=config, out=out
    )
    exact = op.norm_linear_reference(x.double(), weight.double(), None, EPS, activation)
    exact = exact if turn is None else _turned(exact, turn)
    fast = activation == "gelu" and x.is_cuda and x.dtype == torch.bfloat16
    rtol, atol = FAST_GELU if fast else TOLERANCE[x.dtype]
    torch.testing.assert_close(fused.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_equals_the_reference_in_float64(
    config: Tile | None, activation: op.Activation | None, dtype: torch.dtype
) -> None:
    _check(*_inputs((70, 96), 80, dtype), activation, config)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("parts", [1, 3, 16, 64])
@torch.no_grad()
def test_squares_may_be_given(config: Tile | None, parts: int) -> None:
    x, weight = _inputs((70, 192 if parts == 64 else 96), 48, torch.bfloat16)
    if config in (PARTS, WHOLE, SWAPPED):
        config = replace(config, k=256)
    _check(x, weight, config=config, squares=_squares(x, parts))


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_given_squares_are_the_ones_used(config: Tile | None) -> None:
    x, weight = _inputs((70, 96), 48, torch.float32)
    once, twice = (
        op.norm_linear_triton(
            x, weight, None, 1e-12, squares_MP=factor * _squares(x, 3), config=config
        )
        for factor in (1.0, 4.0)
    )
    torch.testing.assert_close(once, 2.0 * twice)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", TURN_TYPES)
@pytest.mark.parametrize(
    ("shape", "columns", "turn"),
    [
        # A session's steps, of eight latents each: queries and keys turn, then keys alone.
        ((2, 3, 8, 32), 96, (3, 8, 64, 32)),
        ((33, 8, 32), 32, (33, 8, 16, 16)),
        # Twelve rows a phase; heads wider than a tile; a tile that turns in part.
        ((2, 12, 40), 128, (3, 12, 64, 64)),
        ((70, 32), 50, (5, 3, 24, 8)),
        # Heads whose width is no power of two; phases that end amid the rows; all columns.
        ((29, 32), 36, (4, 2, 36, 12)),
        ((5, 32), 40, (7, 1, 0, 4)),
    ],
)
@torch.no_grad()
def test_leading_columns_turn(
    config: Tile | None,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    columns: int,
    turn: tuple[int, int, int, int],
) -> None:
    x, weight = _inputs(shape, columns, dtype)
    _check(x, weight, config=config, squares=_squares(x, 2), turn=_turn(*turn))


@torch.no_grad()
def test_the_plain_form_turns_alike() -> None:
    for rows in (1, 16, 24, 50):
        x, weight = _inputs((rows, 32), 24, torch.float64)
        turn = _turn(3, 8, 16, 8)
        turned = op.norm_linear_reference(x, weight, None, EPS, turn=turn)
        exact = _turned(op.norm_linear_reference(x, weight, None, EPS), turn)
        torch.testing.assert_close(turned, exact, rtol=0, atol=1e-12)


@torch.no_grad()
def test_few_rows_take_the_whole_depth_at_once() -> None:
    for depth in (256, 512, 768):
        tile = op.tile_for(8, 3 * depth, depth)
        assert tile.k >= depth
        _check(*_inputs((8, depth), 32, torch.bfloat16), config=tile)


@pytest.mark.parametrize("shape", [(1, 32), (3, 5, 40), (2, 2, 9, 72), (33, 21)])
@pytest.mark.parametrize("columns", [1, 33])
@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_odd_shapes(shape: tuple[int, ...], columns: int, config: Tile | None) -> None:
    _check(*_inputs(shape, columns, torch.bfloat16), config=config)


@pytest.mark.parametrize("config", [None, PARTS, TMA, RESIDENT])
@pytest.mark.parametrize("first", [0, 3])
@torch.no_grad()
def test_rows_may_be_part_of_wider_ones(config: Tile | None, first: int) -> None:
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
    for config in (PARTS, LOOP):
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


def test_squares_and_turns_that_do_not_fit_are_errors() -> None:
    x, weight = _inputs((4, 32), 8, torch.float32)
    turn = _turn(2, 2, 8, 4)

    def fails(match: str, activation: op.Activation | None = None, **given: Any) -> None:
        with pytest.raises(ValueError, match=match):
            op.norm_linear_triton(x, weight, None, EPS, activation, **given)

    fails("contiguous", squares_MP=torch.ones(4, 2, device=DEVICE).double())
    fails("4 rows", squares_MP=torch.ones(3, 2, device=DEVICE))
    fails("4 rows", squares_MP=torch.ones(4, op.MOST_PARTS + 1, device=DEVICE))
    fails("not both", activation="gelu", turn=turn)
    fails("float32", turn=turn._replace(cos_TK=turn.cos_TK.double()))
    fails("phases are", turn=turn._replace(rows=0))
    fails("6 of 8 columns", turn=turn._replace(columns=6))
    fails("12 of 8 columns", turn=turn._replace(columns=12))


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
    op.norm_linear(x, weight.requires_grad_(), None, EPS, turn=_turn(3, 2, 8, 4)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("columns", [768, 1536, 2048, 3072])
def test_more_rows_never_take_smaller_tiles(columns: int) -> None:
    tiles = [op.tile_for(rows, columns, 512) for rows in (8, 264, 1056, 8448, 32768)]
    sizes = [tile.m * tile.n for tile in tiles]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
