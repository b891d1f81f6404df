"""8-bit products against exact integers, in Triton's interpreter where there is no GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import int8_matmul as op
from kernels.int8_epilogue import Epilogue
from kernels.int8_weight import Int8Weight
from kernels.matmul_tile import Tile
from kernels.norm_linear import Activation
from kernels.turn import Turn, turned_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SMALL = Tile(16, 32, 32, warps=4, stages=3)
LARGE = Tile(64, 64, 64, warps=4, stages=3, group=2)
TMA = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True)
RESIDENT = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True, resident=3)
CONFIGS = (None, SMALL, LARGE, TMA, RESIDENT)
FLOAT32 = Epilogue(torch.float32)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _integers(rows: tuple[int, ...], depth: int, columns: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    q = torch.randint(-127, 128, (*rows, depth), device=DEVICE, dtype=torch.int8)
    wq = torch.randint(-127, 128, (columns, depth), device=DEVICE, dtype=torch.int8)
    return q, wq


def _exact_sums(q: Tensor, wq: Tensor) -> Tensor:
    return (q.cpu().long() @ wq.cpu().long().t()).to(DEVICE)


def _ones(*shape: int) -> Tensor:
    return torch.ones(shape, device=DEVICE)


@pytest.mark.parametrize("rows", [(1,), (7,), (65,), (131,), (3, 5)])
@pytest.mark.parametrize(("depth", "columns"), [(32, 1), (96, 80), (40, 33), (21, 17)])
@pytest.mark.parametrize("config", CONFIGS)
def test_products_are_exact(
    rows: tuple[int, ...], depth: int, columns: int, config: Tile | None
) -> None:
    q, wq = _integers(rows, depth, columns)
    # Scales that are powers of two leave every bit of the sums as it is.
    weight = Int8Weight(wq, 0.25 * _ones(columns))
    exact = _exact_sums(q, wq).double()
    for scale in (0.5 * _ones(*rows), 0.5):
        out = op.int8_matmul_triton(q, scale, weight, FLOAT32, config=config)
        assert torch.equal(out.double() * 8, exact)
        plain = op.int8_matmul_reference(q, scale, weight, FLOAT32)
        assert torch.equal(plain.double() * 8, exact)


@pytest.mark.parametrize("rows", [1, 2, 17, 40])
@pytest.mark.parametrize("depth", [1, 24, 513])
def test_plain_sums_are_exact(rows: int, depth: int) -> None:
    q, wq = _integers((rows,), depth, 19)
    assert torch.equal(op.exact_sums(q, wq).double(), _exact_sums(q, wq).double())


def test_a_processor_whose_products_saturate_takes_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    q, wq = _integers((4,), 32, 8)
    monkeypatch.setattr(op, "_int_mm_is_exact", lambda: False)
    total = op.exact_sums(q, wq)
    assert total.dtype == torch.float64
    assert torch.equal(total, _exact_sums(q, wq).double())


def test_the_largest_sums_do_not_saturate() -> None:
    # Float32 holds integers to 2^24 only; this sum is a multiple of a high power of two.
    depth = 2**13
    q = torch.full((2, depth), -127, device=DEVICE, dtype=torch.int8)
    for form in (op.int8_matmul_triton, op.int8_matmul_reference):
        out = form(q, _ones(2), Int8Weight(q, _ones(2)), FLOAT32)
        assert (out.double() == 127**2 * depth).all()


def _turn(columns: int) -> Turn:
    angle = 6.28 * torch.rand(3, 8, device=DEVICE)
    return Turn(angle.cos(), angle.sin(), 4, columns)


@pytest.mark.parametrize(
    ("activation", "turns", "adds"),
    [(None, False, False), ("gelu", False, False), (None, True, False), (None, False, True)],
)
@pytest.mark.parametrize("out", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("config", CONFIGS)
def test_scales_and_what_follows(
    activation: Activation | None, turns: bool, adds: bool, out: torch.dtype, config: Tile | None
) -> None:
    q, wq = _integers((37,), 64, 48)
    scale = torch.rand(37, device=DEVICE) * 1e-3
    weight = Int8Weight(wq, torch.rand(48, device=DEVICE) * 1e-1)
    residual = torch.randn(37, 48, device=DEVICE) if adds else None
    turn = _turn(32) if turns else None
    out_scale = 0.05 if out == torch.int8 else None
    dtype = torch.bfloat16 if out == torch.int8 else out
    epilogue = Epilogue(dtype, activation, turn, residual, out_scale)
    exact = _exact_sums(q, wq).double() * scale.double()[:, None] * weight.scale_N.double()
    if activation:
        exact = F.gelu(exact, approximate="tanh")
    if turn is not None:
        exact = turned_reference(exact, turn)
    if residual is not None:
        exact = exact + residual.double()
    forms = (
        op.int8_matmul_reference(q, scale, weight, epilogue),
        op.int8_matmul_triton(q, scale, weight, epilogue, config=config),
    )
    for y in forms:
        assert y.dtype == out
        if out_scale is None:
            # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
            rtol, atol = (4e-6, 4e-6) if out == torch.float32 else (2**-7, 2e-3)
            torch.testing.assert_close(y.double(), exact, rtol=rtol, atol=atol)
        else:
            clipped = exact.clamp(-127 * out_scale, 127 * out_scale)
            # A GPU's approximations: tanh to 2^-11, and half a step to 2^-5.
            assert ((y.double() * out_scale - clipped).abs() <= 0.54 * out_scale + 2e-3).all()


@pytest.mark.parametrize("config", [TMA, SMALL])
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_residual_repeats_over_the_dimensions_that_it_lacks(config: Tile, repeats: int) -> None:
    q, wq = _integers((2, 5, 7), 32, 48)
    residual = torch.randn((2, 5, 7, 48)[repeats:], device=DEVICE)
    epilogue = Epilogue(torch.float32, residual=residual)
    weight = Int8Weight(wq, 1e-3 * _ones(48))
    exact = residual + 1e-3 * _exact_sums(q, wq).double()
    for form in (op.int8_matmul_triton, op.int8_matmul_reference):
        options = {"config": config} if form is op.int8_matmul_triton else {}
        y = form(q, 1.0, weight, epilogue, **options)
        torch.testing.assert_close(y.double(), exact, rtol=4e-6, atol=4e-6)


@pytest.mark.parametrize(("rows", "columns"), [((0,), 8), ((4, 0), 8), ((4,), 0)])
def test_nothing_gives_nothing(rows: tuple[int, ...], columns: int) -> None:
    q, wq = _integers(rows, 32, columns)
    weight = Int8Weight(wq, _ones(columns))
    for form in (op.int8_matmul_triton, op.int8_matmul_reference):
        assert form(q, _ones(*rows), weight, FLOAT32).shape == (*rows, columns)


def test_what_does_not_fit_is_an_error() -> None:
    q, wq = _integers((4,), 32, 8)
    weight = Int8Weight(wq, _ones(8))

    def fails(match: str, rows: Tensor, scale: Tensor, epilogue: Epilogue = FLOAT32) -> None:
        with pytest.raises(ValueError, match=match):
            op.int8_matmul_triton(rows, scale, weight, epilogue)

    fails("int16", q.short(), _ones(4))
    fails("contiguous in K", q.t().contiguous().t(), _ones(4))
    fails("a scale a row", q, _ones(3))
    fails("a scale a row", q, _ones(4).double())
    fails("residual", q, _ones(4), Epilogue(torch.float32, residual=_ones(4)))
    fails("positive", q, _ones(4), Epilogue(torch.float32, out_scale=0.0))
    fails("not both", q, _ones(4), Epilogue(torch.float32, "gelu", _turn(0)))
    with pytest.raises(ValueError, match="out must be"):
        op.int8_matmul_triton(q, _ones(4), weight, FLOAT32, out=_ones(4, 8).bfloat16())


@pytest.mark.parametrize("columns", [512, 1536, 2048])
@pytest.mark.parametrize("out_scale", [None, 0.1])
def test_more_rows_never_take_smaller_tiles(columns: int, out_scale: float | None) -> None:
    epilogue = Epilogue(torch.bfloat16, "gelu", out_scale=out_scale)
    tiles = [op.tile_for(rows, columns, 512, epilogue) for rows in (8, 264, 1056, 32768)]
    sizes = [tile.m * tile.n for tile in tiles]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert (tiles[-1].resident > 0) is (out_scale is not None)


def test_three_programs_share_a_multiprocessor_where_two_would_leave_some_waiting() -> None:
    bare = Epilogue(torch.bfloat16)
    assert op.tile_for(4096, 1536, 512, bare).k < op.tile_for(8448, 1536, 512, bare).k
    added = Epilogue(torch.bfloat16, residual=torch.zeros(1536))
    assert op.tile_for(4096, 1536, 512, added) == op.tile_for(8448, 1536, 512, added)
