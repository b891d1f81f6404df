"""The linear layer with its residual against float64, in Triton's interpreter without a GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import linear_add as op
from kernels.dispatch import forced
from kernels.linear_add import Rows, SumTile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SMALL = SumTile(16, 32, 32, warps=4, stages=3)
TMA = SumTile(64, 32, 32, warps=4, stages=3, group=2, tma=True, tma_store=True)
WHOLE = SumTile(16, 16, 0, warps=2, stages=1, whole=True)
SPLIT = SumTile(64, 32, 16, warps=4, stages=2, tma=True, split=3)
CONFIGS = [SMALL, TMA, WHOLE, SPLIT]
# The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2**-7, 1e-4)}


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, math.nan, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _inputs(
    shape: tuple[int, ...], columns: int, dtype: torch.dtype, *, repeats: int = 0
) -> list[Tensor]:
    """Rows, weight, and a residual without the first `repeats` dimensions of the rows."""
    torch.manual_seed(0)
    weight = torch.randn(columns, shape[-1]) / shape[-1] ** 0.5
    inputs = torch.randn(shape), weight, torch.randn(*shape[repeats:-1], columns)
    return [t.to(DEVICE, dtype) for t in inputs]


def _exact(inputs: list[Tensor]) -> Tensor:
    x, weight, residual = (t.double() for t in inputs)
    return residual + x @ weight.t()


def _check(rows: Rows, inputs: list[Tensor]) -> None:
    """Rows within rounding of float64; squares those of the rows, part by part, as rounded."""
    rtol, atol = TOLERANCE[inputs[0].dtype]
    torch.testing.assert_close(rows.x.double(), _exact(inputs), rtol=rtol, atol=atol)
    assert rows.squares_MP is not None
    assert rows.squares_MP.dtype == torch.float32
    wide = rows.x.double().flatten(0, -2)
    parts = rows.squares_MP.shape[1]
    width = wide.shape[1] if parts == 1 else _width(wide.shape[1], parts)
    squares = torch.stack([part.square().sum(-1) for part in wide.split(width, -1)], -1)
    torch.testing.assert_close(rows.squares_MP.double(), squares, rtol=1e-5, atol=1e-6)


def _width(columns: int, parts: int) -> int:
    """The power of two that cuts so many columns into so many parts."""
    return max(1 << n for n in range(11) if -(-columns // (1 << n)) == parts)


@pytest.mark.parametrize("shape", [(1, 32), (70, 96), (3, 11, 21)])
@pytest.mark.parametrize("config", [None, *CONFIGS])
@pytest.mark.parametrize(
    ("columns", "dtype"), [(1, torch.float32), (80, torch.float32), (80, torch.bfloat16)]
)
@torch.no_grad()
def test_equals_float64(
    shape: tuple[int, ...], columns: int, config: SumTile | None, dtype: torch.dtype
) -> None:
    inputs = _inputs(shape, columns, dtype)
    _check(op.linear_add_triton(*inputs, config=config), inputs)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("repeats", [1, 2, 3])
@torch.no_grad()
def test_a_residual_repeats_over_the_dimensions_that_it_lacks(
    config: SumTile, repeats: int
) -> None:
    inputs = _inputs((2, 5, 7, 48), 64, torch.float32, repeats=repeats)
    _check(op.linear_add_triton(*inputs, config=config), inputs)
    plain = op.linear_add_reference(*inputs)
    torch.testing.assert_close(plain.x.double(), _exact(inputs), rtol=1e-5, atol=1e-5)
    assert plain.squares_MP is None


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_a_residual_may_be_a_slice(config: SumTile) -> None:
    x, weight, residual = _inputs((3, 7, 5, 48), 64, torch.float32)
    for part in (residual[:, -4:], residual[:, -4:, 1:]):
        inputs = [x[: len(part), : part.shape[1], : part.shape[2]].contiguous(), weight, part]
        assert not part.is_contiguous()
        _check(op.linear_add_triton(*inputs, config=config), inputs)


@pytest.mark.parametrize("depth", [16, 24, 100])
@pytest.mark.parametrize("split", [2, 4])
@torch.no_grad()
def test_parts_of_the_depth_that_are_short_or_empty(depth: int, split: int) -> None:
    inputs = _inputs((9, depth), 40, torch.float32)
    config = SumTile(16, 16, 16, warps=4, stages=2, split=split)
    _check(op.linear_add_triton(*inputs, config=config), inputs)


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_equal_inputs_give_equal_bits(config: SumTile) -> None:
    inputs = _inputs((40, 96), 48, torch.float32)
    first, second = (op.linear_add_triton(*inputs, config=config) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert first.squares_MP is not None
    assert second.squares_MP is not None
    assert torch.equal(first.squares_MP, second.squares_MP)


@pytest.mark.skipif(DEVICE == "cpu", reason="graphs and streams are a GPU's")
@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_replays_of_a_graph_give_equal_bits(config: SumTile) -> None:
    inputs = _inputs((264, 2048), 512, torch.bfloat16)
    eager = op.linear_add_triton(*inputs, config=config)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = op.linear_add_triton(*inputs, config=config)
    for _ in range(3):
        captured.x.fill_(torch.nan)
        graph.replay()
        assert torch.equal(captured.x, eager.x)


@pytest.mark.parametrize("columns", [128, 256, 512, 768])
@pytest.mark.parametrize("rows", [8, 64, 264, 4096, 8448])
@pytest.mark.parametrize("depth", [512, 2048])
def test_the_models_rows_have_few_equal_parts(rows: int, columns: int, depth: int) -> None:
    tile = op.tile_for(rows, columns, depth)
    assert columns % tile.n == 0
    assert columns // tile.n <= op.MOST_PARTS


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_the_residual_may_be_written_over(config: SumTile) -> None:
    x, weight, residual = _inputs((40, 32), 48, torch.float32)
    fresh = op.linear_add_triton(x, weight, residual, config=config).x
    over = op.linear_add_triton(x, weight, residual, config=config, out=residual)
    assert over.x is residual
    assert torch.equal(residual, fresh)


@pytest.mark.parametrize(("shape", "columns"), [((0, 32), 8), ((4, 0, 32), 8), ((4, 32), 0)])
@torch.no_grad()
def test_nothing_gives_nothing(shape: tuple[int, ...], columns: int) -> None:
    rows = op.linear_add_triton(*_inputs(shape, columns, torch.float32))
    assert rows.x.shape == (*shape[:-1], columns)
    assert rows.squares_MP is not None
    assert rows.squares_MP.shape == (rows.x[..., :1].numel() if columns else 4, min(columns, 1))


def test_what_does_not_fit_is_an_error() -> None:
    x, weight, residual = _inputs((4, 32), 8, torch.float32)
    with pytest.raises(ValueError, match="residual"):
        op.linear_add_triton(x, weight, residual[:1])
    with pytest.raises(ValueError, match="float16"):
        op.linear_add_triton(x, weight.half(), residual)
    with pytest.raises(ValueError, match="float16"):
        op.linear_add_triton(x, weight, residual.half())
    with pytest.raises(ValueError, match="contiguous in K"):
        op.linear_add_triton(x, torch.ones(32, 8, device=DEVICE).t(), residual)
    with pytest.raises(ValueError, match="64 parts"):
        op.linear_add_triton(*_inputs((4, 32), 16 * op.MOST_PARTS + 1, x.dtype), config=WHOLE)


@torch.no_grad()
def test_the_form_is_the_dispatchers() -> None:
    inputs = _inputs((6, 32), 16, torch.float32)
    with forced("triton"):
        assert torch.equal(op.linear_add(*inputs).x, op.linear_add_triton(*inputs).x)
    with forced("torch"):
        assert torch.equal(op.linear_add(*inputs).x, op.linear_add_reference(*inputs).x)


def test_gradients_take_the_reference() -> None:
    x, weight, residual = _inputs((6, 32), 16, torch.float32)
    op.linear_add(x, weight.requires_grad_(), residual).x.sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
