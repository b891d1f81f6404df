"""The streaming form against dense attention in float64."""

import math
import os
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import step_attention as op
from kernels.dispatch import forced
from kernels.rotary import rotary_phases, rotate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Phases = tuple[Tensor, Tensor]
SMALL = op.StepConfig(block_keys=16, warps=1, stages=1)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


class Shape(NamedTuple):
    """Streams, queries, pages a stream, keys a page, heads and their width."""

    B: int
    M: int
    W: int
    L: int
    H: int
    K: int


SHAPES = [
    Shape(1, 8, 32, 8, 2, 64),
    Shape(3, 8, 5, 8, 2, 32),
    Shape(2, 12, 32, 12, 1, 32),
    Shape(3, 12, 5, 12, 2, 32),
    Shape(2, 1, 4, 8, 2, 64),
    Shape(2, 20, 3, 2, 1, 32),
    Shape(5, 3, 1, 1, 3, 32),
]


def _phases(position: Tensor, head_dim: int) -> Phases:
    return rotary_phases(position, head_dim, min_period=4.0, max_period=5000.0)


class Case:
    """The operator's inputs. Pages that no stream attends hold NaN, as do those to be written.

    Where there are as many queries as keys, they share a packed projection; otherwise the queries
    are the same in every stream, and each has yet to turn by a phase of its own.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        """Streams' pages are scattered over the pools; later streams have fewer of them."""
        torch.manual_seed(0)
        self.shape = shape
        pages = (shape.B * shape.W + 3, shape.L, shape.H, shape.K)

        def random(*size: int) -> Tensor:
            return torch.randn(*size, device=DEVICE).to(dtype)

        self.k_pages, self.v_pages = random(*pages), random(*pages)
        taken = torch.randperm(pages[0], device=DEVICE)[: shape.B * shape.W].view(-1, shape.W)
        self.own = taken[:, 0].clone()
        self.page_BW = taken.clone()
        for stream in range(1, shape.B):
            self.page_BW[stream, max(1, shape.W - 2 * stream) :] = -1
        # The own page comes first above, but need not.
        self.page_BW = self.page_BW.flip(1)
        unread = torch.ones(pages[0], dtype=torch.bool, device=DEVICE)
        unread[self.page_BW[self.page_BW >= 0]] = False
        unread[self.own] = True
        self.k_pages[unread] = self.v_pages[unread] = torch.nan
        step = torch.randint(10**6, (shape.B,), device=DEVICE)
        self.q, self.k, self.v = random(shape.B, shape.L, 3, shape.H, shape.K).unbind(2)
        self.q_phases: Phases | None = None
        if shape.M != shape.L:
            self.q = random(1, shape.M, shape.H, shape.K).expand(shape.B, -1, -1, -1)
            bins = torch.arange(shape.M, device=DEVICE)
            self.q_phases = _phases(step[:, None] + bins, shape.K)

    def new(self) -> tuple[Tensor, Tensor, Tensor]:
        """The operator's first arguments."""
        return self.q, self.k, self.v

    def pools(self) -> tuple[Tensor, Tensor]:
        """Copies of the pools."""
        return self.k_pages.clone(), self.v_pages.clone()

    def advance(
        self,
        pools: tuple[Tensor, Tensor],
        config: op.StepConfig | None = None,
        index: torch.dtype = torch.int64,
    ) -> Tensor:
        """The kernel's answer; writes the pools."""
        pages = self.own.to(index), self.page_BW.to(index)
        return op.advance_step_attention_triton(
            *self.new(), *pools, *pages, q_phases=self.q_phases, config=config
        )

    def exact(self, pools: tuple[Tensor, Tensor]) -> Tensor:
        """Dense attention in float64, a stream at a time, to pools that hold the new step."""
        q_BMHK = self.q.double()
        if self.q_phases is not None:
            cos, sin = self.q_phases
            q_BMHK = rotate(q_BMHK, (cos.double(), sin.double()))
        out = torch.zeros_like(q_BMHK)
        for stream, page_W in enumerate(self.page_BW):
            k, v = (x[page_W[page_W >= 0]].double().flatten(0, 1) for x in pools)
            scores = torch.einsum("mhk,ehk->hme", q_BMHK[stream], k)
            weights = (scores / self.shape.K**0.5).softmax(-1)
            out[stream] = torch.einsum("hme,ehk->mhk", weights, v)
        return out


def _assert_close(read: Tensor, exact: Tensor) -> None:
    """Within the rounding of the type of what was read."""
    # Rounded q, k and weights move a bfloat16 by some 2^-8 of the values, which are of order one.
    tolerance = 2e-2 if read.dtype == torch.bfloat16 else 1e-5
    assert exact.dtype == torch.float64
    torch.testing.assert_close(read.double(), exact, rtol=tolerance / 2, atol=tolerance)


def _held(shape: Shape) -> op.StepConfig:
    """Of all keys at once."""
    keys = max(16, 1 << (shape.W * shape.L - 1).bit_length())
    return op.StepConfig(keys, warps=8, stages=1, held=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("index", "config"),
    [(torch.int32, None), (torch.int64, SMALL), (torch.int32, "held")],
)
@torch.no_grad()
def test_advancing_stores_and_attends(
    shape: Shape, dtype: torch.dtype, index: torch.dtype, config: Any
) -> None:
    case = Case(shape, dtype)
    k_pages, v_pages = pools = case.pools()
    read = case.advance(pools, _held(shape) if config == "held" else config, index)
    assert read.dtype == dtype
    assert read.is_contiguous()
    torch.testing.assert_close(k_pages[case.own], case.k, rtol=0, atol=0)
    torch.testing.assert_close(v_pages[case.own], case.v, rtol=0, atol=0)
    _assert_close(read, case.exact(pools))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["torch", "triton", "held"])
@torch.no_grad()
def test_a_scale_gives_int8(shape: Shape, form: Any) -> None:
    case = Case(shape)
    # The reference weighs masked keys by zero, which NaN survives.
    pools = case.k_pages.nan_to_num(), case.v_pages.nan_to_num()
    # Of values of order one, some are clipped.
    inputs = *case.new(), *pools, case.own, case.page_BW
    options: Any = {"q_phases": case.q_phases, "out_scale": 0.25 / 127}
    if form == "held":
        read = op.advance_step_attention_triton(*inputs, **options, config=_held(shape))
    else:
        with forced(form):
            read = op.advance_step_attention(*inputs, **options)
    assert read.dtype == torch.int8
    steps = (127 / 0.25 * case.exact(pools)).clamp(-127, 127)
    assert (steps.abs() == 127).any()
    assert ((read.double() - steps).abs() <= 0.5 + 127 / 0.25 * 2e-5).all()


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4]])
@torch.no_grad()
def test_many_streams_take_other_tiles(shape: Shape) -> None:
    case = Case(shape, torch.bfloat16)
    pools = case.pools()
    n_keys = shape.W * shape.L
    many, few = (op.step_config(n, n_keys, shape.K, torch.bfloat16) for n in (4096, 8))
    assert not many.held
    assert few.held
    read = case.advance(pools, many)
    _assert_close(read, case.exact(pools))


@torch.no_grad()
def test_keys_that_do_not_fit_are_refused() -> None:
    case = Case(SHAPES[0])
    with pytest.raises(ValueError, match="256 keys do not fit"):
        case.advance(case.pools(), op.StepConfig(128, 4, 1, held=True))


@torch.no_grad()
def test_only_own_pages_are_written() -> None:
    case = Case(SHAPES[1])
    pools = case.pools()
    case.advance(pools)
    kept = torch.ones(len(pools[0]), dtype=torch.bool, device=DEVICE)
    kept[case.own] = False
    for pool, before in zip(pools, (case.k_pages, case.v_pages), strict=True):
        assert pool[case.own].isfinite().all()
        torch.testing.assert_close(pool[kept], before[kept], rtol=0, atol=0, equal_nan=True)


@torch.no_grad()
def test_the_own_page_is_attended_once_listed_or_not() -> None:
    case = Case(SHAPES[1])
    pools = case.pools()
    read = case.advance(pools)
    case.page_BW = case.page_BW.masked_fill(case.page_BW == case.own[:, None], -1)
    torch.testing.assert_close(case.advance(case.pools()), read, rtol=0, atol=0)


@torch.no_grad()
def test_inputs_may_be_views() -> None:
    case = Case(SHAPES[1])
    plain = case.pools()
    read = case.advance(plain)
    # Keys as heads within pages, values as a part of more.
    k_pages, v_pages = case.pools()
    wide = torch.cat((v_pages, v_pages), 3)
    pools = k_pages.transpose(1, 2).contiguous().transpose(1, 2), wide[..., : case.shape.K]
    torch.testing.assert_close(case.advance(pools), read, rtol=0, atol=0)
    torch.testing.assert_close(pools, plain, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["torch", "triton"])
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[5]])
@torch.no_grad()
def test_dispatch_takes_either_form(form: Any, shape: Shape) -> None:
    case = Case(shape)
    # The reference weighs masked keys by zero, which NaN survives.
    pools = case.k_pages.nan_to_num(), case.v_pages.nan_to_num()
    with forced(form):
        read = op.advance_step_attention(
            *case.new(), *pools, case.own, case.page_BW, q_phases=case.q_phases
        )
    torch.testing.assert_close(pools[0][case.own], case.k, rtol=0, atol=0)
    _assert_close(read, case.exact(pools))


@torch.no_grad()
def test_no_streams_read_nothing() -> None:
    case = Case(SHAPES[1])
    case.q, case.k, case.v = case.q[:0], case.k[:0], case.v[:0]
    case.own, case.page_BW = case.own[:0], case.page_BW[:0]
    assert case.advance(case.pools()).shape == case.q.shape


def test_a_cache_of_another_type_is_refused() -> None:
    case = Case(SHAPES[1])
    with pytest.raises(ValueError, match="no kernel"):
        case.advance((case.k_pages.bfloat16(), case.v_pages))
