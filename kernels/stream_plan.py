"""What is counted before a stream's step: its number, its pages and how its latents turn.

A slot owns W pages in a pool of depth W; its step numbered n is in page n mod W of them, so that a
new step takes the place of the one that has left the window. Formula, for the slot p, its step n,
the stream's first step f and the place w of a page:

    own = p W + n mod W
    seen_w = p W + w where (n - w) mod W <= n - f, else -1

as steps are written in order, so that the newest one's number says what every page holds. A pair i
of a vector at bin t turns by the angle 2 pi t / period_i.

All of it is integers or a few numbers a stream, which plain PyTorch makes in some sixty launches.
The kernel is one, with a program a stream. Turns are counted in float64, and only what is left
beyond a quarter of one is made an angle in float32: no step is too late to be exact. No later
kernel starts before a plan, and all that older kernels wrote, is in memory (launch_settled).

Source of the angles: Su et al. 2021, "RoFormer", arXiv:2104.09864.

Shapes: B streams, P slots, W pages of a slot in the layers' pools, R in the readout's, Q queries a
step, K2 pairs of a head.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from kernels.dependent_launch import launch_options, launch_settled
from kernels.dispatch import form_for
from kernels.rotary import phases_at

_QUARTER = tl.constexpr(math.pi / 2)
_LAST_PAGE = 2**31 - 1


class StepPlan(NamedTuple):
    """One step of B streams.

    Attributes:
        step_B: int64 numbers of the steps.
        first_B: int64 numbers of the streams' first steps.
        own_B: int32 pages, in pools of depth W, of the steps themselves.
        seen_BW: int32 pages that hold steps first .. step of the window; -1 for the others.
        readout_own_B: as own_B, in pools of depth R.
        readout_seen_BR: as seen_BW, in pools of depth R.
        cos_BK2: float32 cosine of the latents' angles, at the step's first bin.
        sin_BK2: the sine.
        query_cos_BQK2: float32 cosine of the queries' angles, at their bins of the step.
        query_sin_BQK2: the sine.
    """

    step_B: Tensor
    first_B: Tensor
    own_B: Tensor
    seen_BW: Tensor
    readout_own_B: Tensor
    readout_seen_BR: Tensor
    cos_BK2: Tensor
    sin_BK2: Tensor
    query_cos_BQK2: Tensor
    query_sin_BQK2: Tensor


def plan_step_reference(
    slot_B: Tensor,
    next_step_P: Tensor,
    first_step_P: Tensor,
    query_bin_Q: Tensor,
    *,
    bins_per_step: int,
    window: int,
    readout: int,
    period_K2: Tensor,
) -> StepPlan:
    """Plain PyTorch: takes the number of each slot's next step, in place, and plans that step.

    Args:
        slot_B: slots to advance, all different, save for a spare one whose plan is undefined.
        next_step_P: int64 number of every slot's next step, which may be negative; those of slot_B
            become one more.
        first_step_P: int64 number of the first step of every slot's stream, from which on pages
            are seen.
        query_bin_Q: bins of a step that the readout's queries stand at.
        bins_per_step: bins in a step.
        window: pages W of a slot in the layers' pools.
        readout: pages R of a slot in the readout's pool.
        period_K2: float64 periods in bins, from rotary_periods.

    Raises:
        ValueError: more pages than an int32 numbers.
    """
    _check(next_step_P, window, readout)
    step_B, first_B = next_step_P[slot_B], first_step_P[slot_B]
    next_step_P[slot_B] = step_B + 1
    bin_B = step_B * bins_per_step
    return StepPlan(
        step_B,
        first_B,
        *_pages(slot_B, step_B, first_B, window),
        *_pages(slot_B, step_B, first_B, readout),
        *phases_at(bin_B, period_K2),
        *phases_at(bin_B[:, None] + query_bin_Q, period_K2),
    )


def plan_step(
    slot_B: Tensor,
    next_step_P: Tensor,
    first_step_P: Tensor,
    query_bin_Q: Tensor,
    *,
    bins_per_step: int,
    window: int,
    readout: int,
    period_K2: Tensor,
) -> StepPlan:
    """The form for the case at hand; arguments as plan_step_reference's."""
    form = plan_step_triton if form_for(next_step_P) == "triton" else plan_step_reference
    return form(
        slot_B,
        next_step_P,
        first_step_P,
        query_bin_Q,
        bins_per_step=bins_per_step,
        window=window,
        readout=readout,
        period_K2=period_K2,
    )


def plan_step_triton(
    slot_B: Tensor,
    next_step_P: Tensor,
    first_step_P: Tensor,
    query_bin_Q: Tensor,
    *,
    bins_per_step: int,
    window: int,
    readout: int,
    period_K2: Tensor,
    warps: int | None = None,
) -> StepPlan:
    """The Triton kernel.

    Args:
        slot_B: as plan_step_reference's, of any integer type.
        next_step_P: likewise, contiguous.
        first_step_P: likewise, contiguous.
        query_bin_Q: likewise, of any integer type.
        bins_per_step: likewise.
        window: likewise.
        readout: likewise.
        period_K2: likewise.
        warps: warps a program; plan_warps' if not given.

    Returns:
        The plan; every tensor contiguous.

    Raises:
        ValueError: more pages than an int32 numbers, or steps that are not contiguous.
    """
    _check(next_step_P, window, readout)
    if not (next_step_P.is_contiguous() and first_step_P.is_contiguous()):
        raise ValueError("the steps' numbers are not contiguous")
    n_streams, n_queries, n_pairs = len(slot_B), len(query_bin_Q), len(period_K2)

    def empty(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty((n_streams, *shape), dtype=dtype, device=slot_B.device)

    plan = StepPlan(
        empty(torch.int64),
        empty(torch.int64),
        empty(torch.int32),
        empty(torch.int32, window),
        empty(torch.int32),
        empty(torch.int32, readout),
        empty(torch.float32, n_pairs),
        empty(torch.float32, n_pairs),
        empty(torch.float32, n_queries, n_pairs),
        empty(torch.float32, n_queries, n_pairs),
    )
    if n_streams:
        _plan_step_kernel[(n_streams,)](
            slot_B.contiguous(),
            next_step_P,
            first_step_P,
            query_bin_Q.contiguous(),
            period_K2.contiguous(),
            *plan,
            BINS=bins_per_step,
            W=window,
            R=readout,
            Q=n_queries,
            K2=n_pairs,
            PAGES=triton.next_power_of_2(window),
            READOUT_PAGES=triton.next_power_of_2(readout),
            QUERIES=triton.next_power_of_2(max(1, n_queries)),
            PAIRS=triton.next_power_of_2(n_pairs),
            num_warps=warps or plan_warps(n_streams),
            **launch_options(slot_B),
        )
    return plan


def plan_warps(n_streams: int) -> int:
    """Few streams share the work of each among more warps."""
    return 4 if n_streams < 128 else 1


def _check(next_step_P: Tensor, window: int, readout: int) -> None:
    pages = len(next_step_P) * max(window, readout)
    if pages > _LAST_PAGE:
        raise ValueError(f"{pages} pages, but an int32 numbers no more than {_LAST_PAGE}")


def _pages(slot_B: Tensor, step_B: Tensor, first_B: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """The step's own page (B,), and the pages (B, depth) that it sees."""
    index_W = torch.arange(depth, device=slot_B.device)
    age_BW = (step_B[:, None] - index_W) % depth
    page_BW = slot_B[:, None] * depth + index_W
    seen_BW = page_BW.where(age_BW <= (step_B - first_B)[:, None], -1)
    return (slot_B * depth + step_B % depth).int(), seen_BW.int()


@triton.jit  # type: ignore[untyped-decorator]
def _store_pages(  # type: ignore[no-untyped-def]
    own_ptr, seen_ptr, stream, slot, step, first, DEPTH: tl.constexpr, PAGES: tl.constexpr
):
    # A remainder has its dividend's sign here.
    own = ((step % DEPTH + DEPTH) % DEPTH).to(tl.int32)
    base = slot.to(tl.int32) * DEPTH
    w = tl.arange(0, PAGES)
    age_W = tl.where(w <= own, own - w, own - w + DEPTH)
    # No page is older than the window, so that the stream's length need not be known beyond it.
    oldest = tl.minimum(step - first, DEPTH).to(tl.int32)
    tl.store(own_ptr + stream, base + own)
    tl.store(seen_ptr + stream * DEPTH + w, tl.where(age_W <= oldest, base + w, -1), w < DEPTH)


@triton.jit
def _store_phases(  # type: ignore[no-untyped-def]
    cos_ptr, sin_ptr, place, time_bin, period, inside
):
    quarters = time_bin.to(tl.float64) / period * 4
    nearest = tl.floor(quarters + 0.5)
    # Within an eighth of a turn these polynomials, of Cephes' sinf and cosf, are exact to float32;
    # the library's functions would bring a path for large angles along, with memory of its own.
    x = (quarters - nearest).to(tl.float32) * _QUARTER
    z = x * x
    s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * x + x
    c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z
    c = c - 0.5 * z + 1.0
    # A quarter turn on, (cos, sin) is (-sin, cos).
    quarter = (nearest.to(tl.int64) & 3).to(tl.int32)
    cos = tl.where(quarter & 1 == 1, s, c)
    sin = tl.where(quarter & 1 == 1, c, s)
    tl.store(cos_ptr + place, tl.where((quarter + 1) & 2 == 2, -cos, cos), inside)
    tl.store(sin_ptr + place, tl.where(quarter & 2 == 2, -sin, sin), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _plan_step_kernel(  # type: ignore[no-untyped-def]
    slot_ptr,
    next_step_ptr,
    first_step_ptr,
    query_bin_ptr,
    period_ptr,
    step_ptr,
    first_ptr,
    own_ptr,
    seen_ptr,
    readout_own_ptr,
    readout_seen_ptr,
    cos_ptr,
    sin_ptr,
    query_cos_ptr,
    query_sin_ptr,
    BINS: tl.constexpr,
    W: tl.constexpr,
    R: tl.constexpr,
    Q: tl.constexpr,
    K2: tl.constexpr,
    PAGES: tl.constexpr,
    READOUT_PAGES: tl.constexpr,
    QUERIES: tl.constexpr,
    PAIRS: tl.constexpr,
    PDL: tl.constexpr,
):
    stream = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, PAIRS)
    q = tl.arange(0, QUERIES)
    inside_K = k < K2
    if PDL:
        gdc_wait()

    slot = tl.load(slot_ptr + stream).to(tl.int64)
    # They arrive while the slot's numbers are looked up.
    period_K = tl.load(period_ptr + k, inside_K, 1.0)
    query_bin_Q = tl.load(query_bin_ptr + q, q < Q, 0).to(tl.int64)
    step = tl.load(next_step_ptr + slot)
    first = tl.load(first_step_ptr + slot)
    # All warps have the number before one of them changes it.
    tl.debug_barrier()
    tl.store(next_step_ptr + slot, step + 1)
    tl.store(step_ptr + stream, step)
    tl.store(first_ptr + stream, first)
    _store_pages(own_ptr, seen_ptr, stream, slot, step, first, W, PAGES)
    _store_pages(readout_own_ptr, readout_seen_ptr, stream, slot, step, first, R, READOUT_PAGES)

    start = step * BINS
    _store_phases(cos_ptr, sin_ptr, stream * K2 + k, start, period_K, inside_K)
    _store_phases(
        query_cos_ptr,
        query_sin_ptr,
        stream * (Q * K2) + (q * K2)[:, None] + k[None, :],
        (start + query_bin_Q)[:, None],
        period_K[None, :],
        (q < Q)[:, None] & inside_K[None, :],
    )
    launch_settled(PDL)
