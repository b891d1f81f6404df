"""Products of few rows in one launch against exact integers, in the interpreter without a GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import int8_whole_depth as op
from kernels.int8_epilogue import Epilogue
from kernels.int8_weight import Int8Weight
from kernels.matmul_tile import Tile
from kernels.quantize_rows import quantize_rows_reference, quantize_with_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Rows on the right and on the left, in parts a warp and in one.
VERY_FEW = Tile(8, 16, 0, warps=4, stages=1)
FEW = Tile(16, 16, 0, warps=4, stages=1)
SWAPPED = Tile(16, 64, 0, warps=4, stages=1)
MORE = Tile(64, 64, 0, warps=8, stages=1)
CONFIGS = (VERY_FEW, FEW, SWAPPED, MORE)
FLOAT32 = Epilogue(torch.float32)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _inputs(rows: int, depth: int, columns: int) -> tuple[Tensor, Int8Weight]:
    torch.manual_seed(0)
    wq = torch.randint(-127, 128, (columns, depth), device=DEVICE, dtype=torch.int8)
    # Scales that are powers of two leave every bit of the sums as it is.
    weight = Int8Weight(wq, torch.full((columns,), 0.25, device=DEVICE))
    return torch.randn(rows, depth, device=DEVICE), weight


def _sums(q: Tensor, weight: Int8Weight) -> Tensor:
    return (q.cpu().long() @ weight.q_NK.cpu().long().t()).double().to(DEVICE)


@pytest.mark.parametrize("rows", [1, 8, 19, 70])
@pytest.mark.parametrize(("depth", "columns"), [(512, 16), (40, 33), (21, 17), (1, 1), (300, 80)])
@pytest.mark.parametrize("config", CONFIGS)
def test_products_of_quantised_rows_are_exact(
    rows: int, depth: int, columns: int, config: Tile
) -> None:
    x, weight = _inputs(rows, depth, columns)
    q = quantize_with_reference(x, 0.03125)
    exact = _sums(q, weight)
    for given in (q, x):
        y = op.int8_whole_depth_triton(given, weight, FLOAT32, config, in_scale=0.03125)
        assert torch.equal(y.double() * 128, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS)
def test_rows_are_quantised_to_the_bit(dtype: torch.dtype, config: Tile) -> None:
    x, weight = _inputs(21, 96, 48)
    x = (x * torch.logspace(-3, 3, 21, device=DEVICE)[:, None]).to(dtype)
    x[3] = 0.0
    q, scale = quantize_rows_reference(x)
    exact = _sums(q, weight).float() * scale[:, None] * 0.25
    y = op.int8_whole_depth_triton(x, weight, FLOAT32, config)
    assert torch.equal(y, exact)


def test_few_rows_take_one_launch_and_many_do_not() -> None:
    assert op.tile_for(8, 1536, 512) is not None
    assert op.tile_for(16, 512, 2048) is not None
    assert op.tile_for(264, 1536, 512) is not None
    assert op.tile_for(64, 512, 2048) is not None
    assert op.tile_for(65, 512, 2048) is None
    assert op.tile_for(8, 512, 4096) is None
    assert op.tile_for(8448, 1536, 512) is None


def test_what_does_not_fit_is_an_error() -> None:
    x, weight = _inputs(4, 32, 8)

    def fails(match: str, rows: Tensor, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            op.int8_whole_depth_triton(rows, weight, FLOAT32, FEW, **options)

    fails("their scale", x.to(torch.int8))
    fails("a scale each", x, eps=1e-6, in_scale=1.0)
    fails("contiguous in K", x.t().contiguous().t())
    fails("rows of 31", x[:, :31])
