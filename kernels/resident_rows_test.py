"""The product of rows that stay: on a GPU against exact sums, without one compiled for Hopper."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import resident_rows as op
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
from kernels.norm_linear import norm_linear_triton
from kernels.product_epilogue import Normed
from kernels.turn import turned_reference

EPS = 1e-6
ROWS = (2048, 2049, 5000, 8192)
PLANS = [op.Plan(0, 64, 2), op.Plan(1, 32, 1), op.Plan(100, 32, 4), op.Plan(4, 128, 1)]


def _exact(x: Tensor, weight: Tensor, follows: Normed) -> Tensor:
    exact = F.linear(F.rms_norm(x.double(), x.shape[1:], None, EPS), weight.double())
    if follows.gelu:
        exact = F.gelu(exact, approximate="tanh")
    return exact if follows.turn is None else turned_reference(exact, follows.turn)


def _check(
    x: Tensor, weight: Tensor, follows: Normed, plan: op.Plan | None = None, size: float = 1.0
) -> None:
    out = poisoned(len(x), len(weight))
    op.resident_rows(x, weight, follows, out, plan)
    exact = _exact(x, weight, follows)
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=2e-3 * size)


@needs_hopper
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("depth", "columns", "parts"),
    [(256, 768, 1), (256, 2048, 2), (512, 512, 2), (512, 1536, 4), (512, 2048, 16)],
)
@pytest.mark.parametrize(("gelu", "head"), [(False, 0), (True, 0), (False, 64), (False, 32)])
def test_norms_and_activates_or_turns(
    rows: int, depth: int, columns: int, parts: int, gelu: bool, head: int
) -> None:
    x, weight = matrices(rows, depth, columns)
    turn = make_turn(columns // 3 // 64 * 128, head) if head else None
    _check(x, weight, Normed(squares_of(x, parts), EPS, gelu, turn))


@needs_hopper
@pytest.mark.parametrize("depth", [64, 192, 256, 448, 512])
@pytest.mark.parametrize("plan", PLANS)
def test_whatever_the_plan(depth: int, plan: op.Plan) -> None:
    x, weight = matrices(5000, depth, 1536)
    squares = squares_of(x, 2)
    for follows in (Normed(squares, EPS, True), Normed(squares, EPS, turn=make_turn(1024, 64))):
        _check(x, weight, follows, plan)


@needs_hopper
@pytest.mark.parametrize("columns", [128, 1152, 3072])
@pytest.mark.parametrize("rows", [100, 8448, 20000])
def test_any_number_of_rows_and_tiles(rows: int, columns: int) -> None:
    x, weight = matrices(rows, 256, columns)
    _check(x, weight, Normed(squares_of(x, 2), EPS))


@needs_hopper
@pytest.mark.parametrize("size", [1e-2, 1.0, 30.0])
def test_gelu_of_small_and_large(size: float) -> None:
    x, weight = matrices(2048, 256, 768)
    # Rows are normalised: it is the weight that makes results small or large.
    _check(x, (size * weight.float()).bfloat16(), Normed(squares_of(x, 2), EPS, True), size=size)


@needs_hopper
def test_one_right_after_the_other() -> None:
    """A kernel that starts early must not read what the one before still writes."""
    x, weight = matrices(8192, 512, 512)
    # As of rows whose mean square is 1, so that nothing need be computed in between.
    follows = Normed(torch.full((8192, 2), 256.0, device=DEVICE), EPS)
    rows = [x, *(poisoned(8192, 512) for _ in range(8))]
    for before, after in pairwise(rows):
        op.resident_rows(before, weight, follows, after)
    for before, after in pairwise(rows):
        exact = F.linear(before.double(), weight.double()) / (1 + EPS) ** 0.5
        torch.testing.assert_close(after.double(), exact, rtol=2**-8, atol=2e-3)


@needs_hopper
def test_the_operator_uses_it() -> None:
    x, weight = matrices(8192, 512, 1536)
    turn = make_turn(1024, 64)
    assert op.serves(x, weight)
    assert op.serves(x, weight, turn)
    assert not op.serves(x, weight, turn._replace(columns=960))
    assert not op.serves(x.float(), weight.float())
    squares = squares_of(x, 2)
    out = poisoned(8192, 1536)
    op.resident_rows(x, weight, Normed(squares, EPS, turn=turn), out)
    y = norm_linear_triton(x, weight, None, EPS, squares_MP=squares, turn=turn)
    assert y.equal(out)


@compiles
@pytest.mark.parametrize("depth", [256, 512])
@pytest.mark.parametrize(("gelu", "head"), [(False, 0), (True, 0), (False, 64), (False, 32)])
def test_compiles_for_hopper(depth: int, gelu: bool, head: int) -> None:
    x, weight = matrices(2048, depth, 1536)
    follows = Normed(squares_of(x, 4), EPS, gelu, make_turn(1024, head) if head else None)
    out = poisoned(2048, 1536)
    check_compiles(lambda: op.resident_rows(x, weight, follows, out))


@compiles
@pytest.mark.parametrize("plan", PLANS)
def test_other_plans_compile_for_hopper(plan: op.Plan) -> None:
    x, weight = matrices(2048, 512, 1536)
    follows = Normed(squares_of(x, 1), EPS, turn=make_turn(1024, 64))
    out = poisoned(2048, 1536)
    check_compiles(lambda: op.resident_rows(x, weight, follows, out, plan))


def test_what_it_fits() -> None:
    assert op.fits(8192, 512, 512)
    assert op.fits(8448, 1536, 512)
    assert op.fits(2048, 2048, 256)
    assert op.fits(8192, 768, 320)
    assert op.fits(100000, 128, 64)
    # Too few programs.
    assert not op.fits(2048, 512, 512)
    assert not op.fits(op.LEAST_ROWS - 1, 4096, 512)
    assert not op.fits(8448, 576, 512)
    assert not op.fits(8448, 512, 500)
    assert not op.fits(8448, 512, 576)
    assert not op.fits(8448, 512, 0)
