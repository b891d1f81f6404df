"""The product whose weight comes first: run on a GPU, compiled for Hopper where there is none."""

import pytest
import torch
from torch.nn import functional as F

from kernels import weight_first as op
from kernels.gluon_compilation_for_tests import check_compiles
from kernels.hopper_for_tests import (
    DEVICE,
    compiles,
    make_turn,
    matrices,
    needs_hopper,
    poisoned,
    squares_of,
)
from kernels.linear_add import linear_add_triton
from kernels.norm_linear import norm_linear_triton
from kernels.product_epilogue import Added, Normed
from kernels.turn import turned_reference

EPS = 1e-6
ROWS = (65, 128, 264, 320)


@needs_hopper
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("depth", "columns"), [(128, 64), (256, 768), (512, 1536), (512, 2048)])
@pytest.mark.parametrize("parts", [1, 4, 16])
@pytest.mark.parametrize(("gelu", "head"), [(False, 0), (True, 0), (False, 64), (False, 32)])
def test_norms_and_activates_or_turns(
    rows: int, depth: int, columns: int, parts: int, gelu: bool, head: int
) -> None:
    x, weight = matrices(rows, depth, columns)
    turn = make_turn(columns - columns % 128 or columns, head) if head else None
    assert op.serves(x, weight, 64, turn)
    out = poisoned(rows, columns)
    y = norm_linear_triton(
        x,
        weight,
        None,
        EPS,
        "gelu" if gelu else None,
        squares_MP=squares_of(x, parts),
        turn=turn,
        out=out,
    )
    exact = F.linear(F.rms_norm(x.double(), (depth,), None, EPS), weight.double())
    if gelu:
        exact = F.gelu(exact, approximate="tanh")
    if turn is not None:
        exact = turned_reference(exact, turn)
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2e-3)


@needs_hopper
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("depth", "columns"), [(512, 512), (2048, 512), (1024, 256), (256, 64)])
def test_adds_the_residual_and_leavessquares_of(rows: int, depth: int, columns: int) -> None:
    x, weight = matrices(rows, depth, columns)
    residual = torch.randn(rows, columns, device=DEVICE).bfloat16()
    assert op.serves(x, weight, 32)
    y, squares = linear_add_triton(x, weight, residual, out=poisoned(rows, columns))
    exact = residual.double() + F.linear(x.double(), weight.double())
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2e-3)
    assert squares is not None
    torch.testing.assert_close(squares.sum(-1), y.float().square().sum(-1), rtol=1e-5, atol=1e-5)


@needs_hopper
def test_reads_a_residual_that_repeats_or_is_a_slice() -> None:
    x, weight = matrices(2 * 5 * 8, 512, 512)
    x = x.view(2, 5, 8, 512)
    product = F.linear(x.double(), weight.double())
    whole = torch.randn(2, 9, 8, 512, device=DEVICE).bfloat16()
    for residual in (whole[:, -5:], whole[0, :5], whole[0, 0]):
        y = linear_add_triton(x, weight, residual).x
        exact = product + residual.double()
        torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2e-3)


@compiles
@pytest.mark.parametrize(("depth", "columns"), [(512, 1536), (256, 768)])
@pytest.mark.parametrize(("gelu", "head"), [(True, 0), (False, 64)])
def test_a_normed_product_compiles_for_hopper(
    depth: int, columns: int, gelu: bool, head: int
) -> None:
    x, weight = matrices(264, depth, columns)
    follows = Normed(
        squares_of(x, 4), EPS, gelu, make_turn(columns // 3 * 2, head) if head else None
    )
    out = poisoned(264, columns)
    check_compiles(lambda: op.weight_first(x, weight, follows, 64, out))


@compiles
@pytest.mark.parametrize("depth", [512, 2048])
def test_an_added_product_compiles_for_hopper(depth: int) -> None:
    x, weight = matrices(264, depth, 512)
    out = poisoned(264, 512)
    follows = Added(out, 264, 0, torch.zeros(264, 16))
    check_compiles(lambda: op.weight_first(x, weight, follows, 32, out))


def test_what_has_room() -> None:
    assert op.stages_for(264, 1536, 512, 64) == 4
    # More programs than multiprocessors: two share one.
    assert op.stages_for(264, 2048, 512, 64) == 3
    assert op.stages_for(264, 512, 2048, 32) == 6
    assert not op.stages_for(264, 512, 8192, 32)
    assert not op.stages_for(op.MOST_ROWS + 1, 512, 512, 32)
    assert not op.stages_for(op.LEAST_ROWS - 1, 512, 512, 32)
    assert not op.stages_for(264, 500, 512, 32)
    assert not op.stages_for(264, 512, 500, 32)
    assert not op.stages_for(264, 512, 0, 32)
