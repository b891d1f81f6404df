"""Attention to paged keys and values against dense attention in float64."""

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
SMALL = op.StepConfig(block_keys=16, num_warps=1, num_stages=1)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, math.nan, **options)

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


class Case:
    """Inputs of both operators. Pages that no stream attends hold NaN."""

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
        free = torch.ones(pages[0], dtype=torch.bool, device=DEVICE)
        free[self.page_BW[self.page_BW >= 0]] = False
        self.k_pages[free] = self.v_pages[free] = torch.nan
        self.q = random(shape.B, shape.M, shape.H, shape.K)
        self.qkv = random(shape.B, shape.L, 3, shape.H, shape.K)
        step = torch.randint(10**6, (shape.B,), device=DEVICE)
        self.cos, self.sin = rotary_phases(step, shape.K, min_period=4.0, max_period=5000.0)

    def pools(self) -> tuple[Tensor, Tensor]:
        """Copies of the pools."""
        return self.k_pages.clone(), self.v_pages.clone()

    def turned(self) -> tuple[Tensor, Tensor]:
        """The new step's queries and keys in float64, turned."""
        phases = self.cos[:, None].double(), self.sin[:, None].double()
        q, k, _ = self.qkv.double().unbind(2)
        return rotate(q, phases), rotate(k, phases)

    def advance(self, pools: tuple[Tensor, Tensor], config: op.StepConfig | None = None) -> Tensor:
        """The kernel's answer; writes the pools."""
        return op.advance_step_attention_triton(
            self.qkv, self.cos, self.sin, *pools, self.own, self.page_BW, config=config
        )


def _assert_close(read: Tensor, exact: Tensor) -> None:
    """Within the rounding of the type of what was read."""
    # Rounded q, k and weights move a bfloat16 by some 2^-8 of the values, which are of order one.
    tolerance = 2e-2 if read.dtype == torch.bfloat16 else 1e-5
    assert exact.dtype == torch.float64
    torch.testing.assert_close(read.double(), exact, rtol=tolerance / 2, atol=tolerance)


def _exact(q_BMHK: Tensor, k_pages: Tensor, v_pages: Tensor, page_BW: Tensor) -> Tensor:
    """Dense attention in float64, a stream at a time."""
    out = torch.zeros(q_BMHK.shape, dtype=torch.float64, device=q_BMHK.device)
    for stream, page_W in enumerate(page_BW):
        page = page_W[page_W >= 0]
        if len(page):
            k, v = (x[page].double().flatten(0, 1) for x in (k_pages, v_pages))
            scores = torch.einsum("mhk,ehk->hme", q_BMHK[stream].double(), k)
            weights = (scores / q_BMHK.shape[-1] ** 0.5).softmax(-1)
            out[stream] = torch.einsum("hme,ehk->mhk", weights, v)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("index", "config"), [(torch.int32, None), (torch.int64, SMALL)])
@torch.no_grad()
def test_paged_equals_float64(
    shape: Shape, dtype: torch.dtype, index: torch.dtype, config: op.StepConfig | None
) -> None:
    case = Case(shape, dtype)
    read = op.paged_step_attention_triton(
        case.q, case.k_pages, case.v_pages, case.page_BW.to(index), config=config
    )
    assert read.dtype == dtype
    exact = _exact(case.q, case.k_pages, case.v_pages, case.page_BW)
    _assert_close(read, exact)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [None, SMALL])
@torch.no_grad()
def test_advancing_turns_stores_and_attends(
    shape: Shape, dtype: torch.dtype, config: op.StepConfig | None
) -> None:
    case = Case(shape, dtype)
    k_pages, v_pages = pools = case.pools()
    # What the own page held before must not matter.
    for pool in pools:
        pool[case.own] = torch.nan
    read = case.advance(pools, config)
    q, k = case.turned()
    _assert_close(k_pages[case.own], k)
    torch.testing.assert_close(v_pages[case.own], case.qkv[:, :, 2], rtol=0, atol=0)
    exact = _exact(q, k_pages, v_pages, case.page_BW)
    _assert_close(read, exact)


@torch.no_grad()
def test_only_own_pages_are_written() -> None:
    case = Case(SHAPES[1])
    pools = case.pools()
    case.advance(pools)
    for pool, before in zip(pools, (case.k_pages, case.v_pages), strict=True):
        changed = (pool != before).flatten(1).all(1) & before.isfinite().flatten(1).all(1)
        assert set(changed.nonzero()[:, 0].tolist()) == set(case.own.tolist())
        kept = torch.ones(len(pool), dtype=torch.bool, device=DEVICE)
        kept[case.own] = False
        torch.testing.assert_close(pool[kept], before[kept], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("form", ["torch", "triton"])
@torch.no_grad()
def test_a_stream_without_a_page_reads_zero(form: Any) -> None:
    case = Case(SHAPES[1])
    page_BW = case.page_BW.clone()
    page_BW[1] = -1
    # The reference weighs masked keys by zero, which NaN survives.
    k_pages, v_pages = (x.nan_to_num() for x in (case.k_pages, case.v_pages))
    with forced(form):
        read = op.paged_step_attention(case.q, k_pages, v_pages, page_BW)
    assert (read[1] == 0).all()
    exact = _exact(case.q, k_pages, v_pages, page_BW)
    _assert_close(read, exact)


@torch.no_grad()
def test_inputs_may_be_views() -> None:
    case = Case(SHAPES[1])
    shape = case.shape
    both = torch.stack((case.k_pages, case.v_pages), 3)
    wide = torch.cat((case.q, case.q), 1)
    read = op.paged_step_attention_triton(
        wide[:, : shape.M], both[:, :, :, 0], both[:, :, :, 1], case.page_BW
    )
    exact = _exact(case.q, case.k_pages, case.v_pages, case.page_BW)
    _assert_close(read, exact)
    pools = both[:, :, :, 0], both[:, :, :, 1]
    plain = case.pools()
    torch.testing.assert_close(case.advance(pools), case.advance(plain))
    torch.testing.assert_close(pools, plain, equal_nan=True)


@torch.no_grad()
def test_dispatch_takes_either_form() -> None:
    case = Case(SHAPES[3])
    q, _ = case.turned()
    for form in ("torch", "triton"):
        pools = case.k_pages.nan_to_num(), case.v_pages.nan_to_num()
        with forced(form):
            read = op.advance_step_attention(
                case.qkv, case.cos, case.sin, *pools, case.own, case.page_BW
            )
        exact = _exact(q, *pools, case.page_BW)
        _assert_close(read, exact)


@torch.no_grad()
def test_no_streams_read_nothing() -> None:
    case = Case(SHAPES[1])
    none = case.page_BW[:0]
    assert op.paged_step_attention_triton(case.q[:0], *case.pools(), none).shape[0] == 0
    read = op.advance_step_attention_triton(
        case.qkv[:0], case.cos[:0], case.sin[:0], *case.pools(), case.own[:0], none
    )
    assert read.shape == case.qkv[:0, :, 0].shape


def test_a_cache_of_another_type_is_refused() -> None:
    case = Case(SHAPES[1])
    with pytest.raises(ValueError, match="no kernel"):
        op.paged_step_attention_triton(case.q, case.k_pages.bfloat16(), case.v_pages, case.page_BW)
