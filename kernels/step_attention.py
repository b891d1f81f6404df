"""Softmax attention of one step's queries to cached keys and values: the streaming form.

Formula: as window_attention, for the newest step alone:

    out = softmax(q k^T / sqrt(K)) v over the keys of every cached step that may be attended,

after the new step's keys and values have been stored.

The plain form scatters the new step, and gathers a stream's cached steps into a copy before it
reads them. The kernels do all in one launch and read pages where they lie, through a table of them,
a page the keys (or values) of one step of one stream: every cached key and value is read once, and
nothing but the result and the new page is written (Kwon et al. 2023, "Efficient Memory Management
for Large Language Model Serving with PagedAttention", arXiv:2309.06180).

Many streams: reading is what takes the time. A program walks tiles of keys, the first of them on
their way while the new step attends itself.

Few streams: waiting is what takes the time. A program holds all cached keys and values of a head.
They are older than the kernel that makes the new step, so that they come while that one still runs
(see dependent_launch), and are all where a product wants them when the queries arrive.

Shapes: B streams, M queries a stream, P pages, W pages that a stream may attend, L keys a page,
H heads of width K. A page number of -1 stands for no page.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.matmul_tile import product_type
from kernels.quantize_rows import quantize_with_reference
from kernels.rotary import rotate
from kernels.window_attention import (
    LOG2_E,
    check_served,
    kernel_serves,
    online_softmax,
    read_type,
    softmax_read,
)

Phases = tuple[Tensor, Tensor]

# So many programs all run at once on an H100 or H200.
_AT_ONCE = 264
# Numbers of keys, and of values, that the registers of a warp hold, and the most warps.
_HELD = 32 * 128
_WARPS = 16


@dataclass(frozen=True)
class StepConfig:
    """How the kernels cut their work: a program serves one head of one stream.

    Attributes:
        block_keys: keys a tile, a power of two, 16 at least.
        warps: warps a program.
        stages: one more than the tiles in flight.
        held: hold all keys, which must fit a tile, before the new step is there.
    """

    block_keys: int
    warps: int
    stages: int
    held: bool = False


def step_attention(q_BMHK: Tensor, k_BWLHK: Tensor, v_BWLHK: Tensor, mask_BW: Tensor) -> Tensor:
    """Attention of one step's queries to steps that were gathered, in plain PyTorch.

    Args:
        q_BMHK: M queries of one step.
        k_BWLHK: L keys of each of W cached steps, in any order.
        v_BWLHK: values alike.
        mask_BW: True where a cached step may be attended; at least one a row.

    Returns:
        (B, M, H, K).
    """
    q = q_BMHK.transpose(1, 2)
    k, v = (x.flatten(1, 2).transpose(1, 2) for x in (k_BWLHK, v_BWLHK))
    mask = mask_BW.repeat_interleave(k_BWLHK.shape[2], 1)[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def advance_step_attention_reference(
    q_BMHK: Tensor,
    k_BLHK: Tensor,
    v_BLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    own_page_B: Tensor,
    page_BW: Tensor,
    *,
    q_phases: Phases | None = None,
    out_scale: float | None = None,
) -> Tensor:
    """Plain PyTorch: what the kernels must equal. Stores the new step, then attends.

    Args:
        q_BMHK: M queries of every stream's new step.
        k_BLHK: L keys of every stream's new step, turned to its time (kernels.rotary).
        v_BLHK: values alike.
        k_pages_PLHK: the cache of keys, of q's type; written in place.
        v_pages_PLHK: the cache of values; written in place.
        own_page_B: int32 or int64 page that each stream writes, never -1. No other stream of the
            call attends it; streams may share one only where it does not matter what it holds.
        page_BW: int32 or int64 pages that a stream attends, its own among them; -1 for none.
        q_phases: cos and sin, each (B, M, K / 2), by which to turn the queries first; None where
            they have been turned.
        out_scale: the scale of an int8 result, or None.

    Returns:
        (B, M, H, K), of q's type, or int8 with the scale `out_scale` as in quantize_rows.
    """
    own_B = own_page_B.long()
    k_pages_PLHK[own_B] = k_BLHK
    v_pages_PLHK[own_B] = v_BLHK
    index_BW = page_BW.clamp(min=0).long()
    k_BWLHK, v_BWLHK = k_pages_PLHK[index_BW], v_pages_PLHK[index_BW]
    q_BMHK = q_BMHK if q_phases is None else rotate(q_BMHK, q_phases)
    out = step_attention(q_BMHK, k_BWLHK, v_BWLHK, page_BW >= 0)
    return out if out_scale is None else quantize_with_reference(out, out_scale)


def advance_step_attention(
    q_BMHK: Tensor,
    k_BLHK: Tensor,
    v_BLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    own_page_B: Tensor,
    page_BW: Tensor,
    *,
    q_phases: Phases | None = None,
    out_scale: float | None = None,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = advance_step_attention_reference
    if form_for(q_BMHK, wins=kernel_serves(q_BMHK)) == "triton":
        form = advance_step_attention_triton
    pages = k_pages_PLHK, v_pages_PLHK, own_page_B, page_BW
    return form(q_BMHK, k_BLHK, v_BLHK, *pages, q_phases=q_phases, out_scale=out_scale)


def advance_step_attention_triton(
    q_BMHK: Tensor,
    k_BLHK: Tensor,
    v_BLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    own_page_B: Tensor,
    page_BW: Tensor,
    *,
    q_phases: Phases | None = None,
    out_scale: float | None = None,
    config: StepConfig | None = None,
) -> Tensor:
    """The Triton kernels; arguments as the reference's, without gradients.

    The pages that a stream attends, save its own, their numbers and the phases are read ahead: no
    kernel that may still run may be writing them. `kernels.stream_plan` sees to that for kernels
    that come after it.

    Args:
        q_BMHK: bfloat16 or float32. Of this, the next two and the caches the last dimension must be
            contiguous. Strides are 0 for queries that all streams share; those of queries that are
            yet to be turned must be even.
        k_BLHK: of q's type.
        v_BLHK: of q's type.
        k_pages_PLHK: of q's type.
        v_pages_PLHK: of q's type.
        own_page_B: as the reference's.
        page_BW: as the reference's; a stream attends its own page even if it is not among them.
        q_phases: float32, or None.
        out_scale: the scale of an int8 result, or None.
        config: how to cut the work; by default what suits the shape.

    Returns:
        (B, M, H, K), contiguous.

    Raises:
        ValueError: the kernel does not serve such types, strides or width of head.
    """
    check_served(q_BMHK, k_BLHK, v_BLHK, k_pages_PLHK, v_pages_PLHK)
    n_batch, n_query, n_heads, head_dim = q_BMHK.shape
    out = torch.empty(q_BMHK.shape, device=q_BMHK.device, dtype=read_type(q_BMHK, out_scale))
    if not n_batch:
        return out
    n_pages, n_key = page_BW.shape[1], k_BLHK.shape[1]
    n_keys = n_pages * n_key
    config = config or step_config(n_batch * n_heads, n_keys, head_dim, q_BMHK.dtype)
    if config.held and config.block_keys < n_keys:
        raise ValueError(f"{n_keys} keys do not fit one tile of {config.block_keys}")
    q, cos, sin = q_BMHK, None, None
    if q_phases is not None:
        q, (cos, sin) = _as_pairs(q_BMHK), (phase.contiguous() for phase in q_phases)
    inputs = (
        q,
        k_BLHK,
        v_BLHK,
        cos,
        sin,
        k_pages_PLHK,
        v_pages_PLHK,
        own_page_B.contiguous(),
        page_BW.contiguous(),
        out,
        n_keys,
        head_dim**-0.5 * LOG2_E,
        0.0 if out_scale is None else 1.0 / out_scale,
        *q.stride()[:3],
        *k_BLHK.stride()[:3],
        *v_BLHK.stride()[:3],
        *((0, 0) if cos is None else cos.stride()[:2]),
        *k_pages_PLHK.stride()[:3],
        *v_pages_PLHK.stride()[:3],
    )
    options = {
        "W": n_pages,
        "M": n_query,
        "L": n_key,
        "H": n_heads,
        "K": head_dim,
        "DOT": product_type(q_BMHK),
        "BLOCK_M": _block(n_query),
        "BLOCK_L": _block(n_key),
        "BLOCK_KEYS": config.block_keys,
        "INT8": out_scale is not None,
        "TURN": q_phases is not None,
        "num_warps": config.warps,
        "num_stages": config.stages,
        **launch_options(q_BMHK),
    }
    grid = (n_batch * n_heads,)
    kernel = _few_streams_kernel if config.held else _many_streams_kernel
    kernel[grid](*inputs, **options)
    return out


def step_config(n_programs: int, n_keys: int, head_dim: int, dtype: torch.dtype) -> StepConfig:
    """How to cut the work of n_programs = B * H heads of n_keys = W * L cached keys each."""
    if dtype == torch.float32:
        # Products of float32 run outside the tensor cores, in registers.
        return StepConfig(min(_block(n_keys), 32), warps=4, stages=2)
    if n_programs <= _AT_ONCE:
        keys = _block(n_keys)
        warps = max(keys * head_dim // _HELD, 1)
        if warps <= _WARPS:
            return StepConfig(keys, warps, stages=1, held=True)
        block_keys, warps = min(keys, 256), 4
    else:
        # Small programs, many of them a multiprocessor, hide each other's waiting.
        block_keys, warps = min(_block(n_keys), 64), 2
    tiles = triton.cdiv(n_keys, block_keys)
    return StepConfig(block_keys, min(warps, block_keys // 8), stages=min(tiles, 2) + 1)


def _block(count: int) -> int:
    """The power of two that holds a count, at least what a matrix product takes."""
    return max(16, int(triton.next_power_of_2(count)))


def _as_pairs(x_K: Tensor) -> Tensor:
    """(..., K / 2) integers that hold a rotary pair each, so that a thread loads whole pairs."""
    return x_K.view(torch.int32 if x_K.element_size() == 2 else torch.int64)


@triton.jit
def _turned(word, cos, sin):  # type: ignore[no-untyped-def]
    """(rows, K) in float32: the turned columns of which the pairs and phases are given.

    Both columns of a pair load it, which spares a shuffle. tl.interleave would do too, but after it
    Triton 3.6 reads a matrix product's operands from shared memory in small pieces.
    """
    # The even column is the low half of a word.
    if word.dtype == tl.int32:
        even = (word << 16).to(tl.float32, bitcast=True)
        odd = (word & -65536).to(tl.float32, bitcast=True)
    else:
        even = word.to(tl.int32).to(tl.float32, bitcast=True)
        odd = (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    is_even = tl.arange(0, word.shape[1])[None, :] % 2 == 0
    return tl.where(is_even, even * cos - odd * sin, odd * cos + even * sin)


@triton.jit
def _attend(q, k, v, live, acc, total, peak, scale):  # type: ignore[no-untyped-def]
    """Adds those keys that are live to what the queries q (rows, K) have read."""
    scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision="ieee")
    scores = tl.where(live[None, :], scores, float("-inf"))
    return online_softmax(scores, v.to(q.dtype), acc, total, peak, scale)


@triton.jit  # type: ignore[untyped-decorator]
def _load_queries(  # type: ignore[no-untyped-def]
    q_ptr, q_m, cos_MK, sin_MK, M: tl.constexpr, TURN: tl.constexpr, BLOCK_M: tl.constexpr
):
    """(BLOCK_M, K) queries, turned where they are given as pairs."""
    K: tl.constexpr = cos_MK.shape[1]
    query = tl.arange(0, BLOCK_M)[:, None]
    column = tl.arange(0, K)[None, :]
    if TURN:
        q = _turned(tl.load(q_ptr + query * q_m + column // 2, query < M, 0), cos_MK, sin_MK)
    else:
        q = tl.load(q_ptr + query * q_m + column, query < M, 0.0)
    return q


@triton.jit  # type: ignore[untyped-decorator]
def _load_phases(  # type: ignore[no-untyped-def]
    cos_ptr,
    sin_ptr,
    stream,
    phase_b,
    phase_m,
    M: tl.constexpr,
    K: tl.constexpr,
    TURN: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Cos and sin of every query, (BLOCK_M, K), a pair's for both of its columns."""
    cos = tl.full((BLOCK_M, K), 1.0, tl.float32)
    sin = tl.full((BLOCK_M, K), 0.0, tl.float32)
    if TURN:
        query = tl.arange(0, BLOCK_M)[:, None]
        place = stream * phase_b + query * phase_m + tl.arange(0, K)[None, :] // 2
        cos = tl.load(cos_ptr + place, query < M, 1.0, cache_modifier=".cg")
        sin = tl.load(sin_ptr + place, query < M, 0.0, cache_modifier=".cg")
    return cos, sin


@triton.jit  # type: ignore[untyped-decorator]
def _many_streams_kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    k_pages_ptr,
    v_pages_ptr,
    own_page_ptr,
    page_ptr,
    out_ptr,
    n_keys,
    scale,
    out_inverse,
    q_b,
    q_m,
    q_h,
    k_b,
    k_l,
    k_h,
    v_b,
    v_l,
    v_h,
    phase_b,
    phase_m,
    k_page_p,
    k_page_l,
    k_page_h,
    v_page_p,
    v_page_l,
    v_page_h,
    W: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
    TURN: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    INT8: tl.constexpr,
    PDL: tl.constexpr,
):
    """One head of one stream; q_b .. v_page_h are strides, in pairs those of q that is to turn."""
    stream = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    column = tl.arange(0, K)[None, :]
    query = tl.arange(0, BLOCK_M)[:, None]
    latent = tl.arange(0, BLOCK_L)
    row = latent[:, None]
    q_ptr += stream * q_b + head * q_h
    k_ptr += stream * k_b + head * k_h + column
    v_ptr += stream * v_b + head * v_h + column
    k_pages_ptr += head * k_page_h + column
    v_pages_ptr += head * v_page_h + column

    wait_for_inputs(PDL)
    own_page = tl.load(own_page_ptr + stream).to(tl.int64)
    cos, sin = _load_phases(cos_ptr, sin_ptr, stream, phase_b, phase_m, M, K, TURN, BLOCK_M)
    q = _load_queries(q_ptr, q_m, cos, sin, M, TURN, BLOCK_M).to(DOT)
    acc = tl.zeros((BLOCK_M, K), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    peak = tl.full((BLOCK_M,), -1e30, tl.float32)
    # The number of keys is no constant, lest a loop of one pass lose its asynchronous loads.
    for start in tl.range(0, n_keys, BLOCK_KEYS):
        if start == 0:
            # Here, and not before the loop, so that the first tiles are on their way meanwhile.
            k = tl.load(k_ptr + row * k_l, row < L, 0.0)
            v = tl.load(v_ptr + row * v_l, row < L, 0.0)
            tl.store(k_pages_ptr + own_page * k_page_p + row * k_page_l, k, row < L)
            tl.store(v_pages_ptr + own_page * v_page_p + row * v_page_l, v, row < L)
            acc, total, peak = _attend(q, k, v, latent < L, acc, total, peak, scale)
        key = start + tl.arange(0, BLOCK_KEYS)
        page = tl.load(page_ptr + stream * W + key // L, key < n_keys, -1).to(tl.int64)
        live = (page >= 0) & (page != own_page)
        inside = live[:, None]
        k_row = (page * k_page_p + (key % L) * k_page_l)[:, None]
        v_row = (page * v_page_p + (key % L) * v_page_l)[:, None]
        k_tile = tl.load(k_pages_ptr + k_row, inside, 0.0)
        v_tile = tl.load(v_pages_ptr + v_row, inside, 0.0)
        acc, total, peak = _attend(q, k_tile, v_tile, live, acc, total, peak, scale)
    place = out_ptr + ((stream * M + query) * H + head) * K + column
    read = softmax_read(acc, total, out_inverse, INT8)
    tl.store(place, read.to(out_ptr.dtype.element_ty), query < M)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_both(  # type: ignore[no-untyped-def]
    q, k, v, new, k_held, v_held, live, scale, out_inverse, INT8: tl.constexpr
):
    """(rows, K) what queries read from two tiles of keys, where these are new or live."""
    fresh = tl.dot(q, tl.trans(k), input_precision="ieee")
    fresh = tl.where(new[None, :], fresh, float("-inf"))
    held = tl.dot(q, tl.trans(k_held), input_precision="ieee")
    held = tl.where(live[None, :], held, float("-inf"))
    peak = (tl.maximum(tl.max(fresh, 1), tl.max(held, 1)) * scale)[:, None]
    fresh = tl.exp2(fresh * scale - peak)
    held = tl.exp2(held * scale - peak)
    acc = tl.dot(fresh.to(v.dtype), v, input_precision="ieee")
    acc = tl.dot(held.to(v.dtype), v_held, acc, input_precision="ieee")
    return softmax_read(acc, tl.sum(fresh, 1) + tl.sum(held, 1), out_inverse, INT8)


@triton.jit  # type: ignore[untyped-decorator]
def _few_streams_kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    k_pages_ptr,
    v_pages_ptr,
    own_page_ptr,
    page_ptr,
    out_ptr,
    n_keys,
    scale,
    out_inverse,
    q_b,
    q_m,
    q_h,
    k_b,
    k_l,
    k_h,
    v_b,
    v_l,
    v_h,
    phase_b,
    phase_m,
    k_page_p,
    k_page_l,
    k_page_h,
    v_page_p,
    v_page_l,
    v_page_h,
    W: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
    TURN: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    INT8: tl.constexpr,
    PDL: tl.constexpr,
):
    """As above, with all keys at once."""
    if PDL:
        # Before the pages have come, so that the next kernel may fetch its weight.
        gdc_launch_dependents()
    stream = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    column = tl.arange(0, K)[None, :]
    query = tl.arange(0, BLOCK_M)[:, None]
    latent = tl.arange(0, BLOCK_L)
    row = latent[:, None]
    q_ptr += stream * q_b + head * q_h
    k_ptr += stream * k_b + head * k_h + column
    v_ptr += stream * v_b + head * v_h + column
    k_pages_ptr += head * k_page_h + column
    v_pages_ptr += head * v_page_h + column

    # Read ahead, past the L1 cache, which may hold what lay there when an older kernel looked.
    own_page = tl.load(own_page_ptr + stream, cache_modifier=".cg").to(tl.int64)
    key = tl.arange(0, BLOCK_KEYS)
    page = tl.load(page_ptr + stream * W + key // L, key < n_keys, -1, cache_modifier=".cg")
    page = page.to(tl.int64)
    live = (page >= 0) & (page != own_page)
    inside = live[:, None]
    k_held = k_pages_ptr + (page * k_page_p + (key % L) * k_page_l)[:, None]
    v_held = v_pages_ptr + (page * v_page_p + (key % L) * v_page_l)[:, None]
    # The compiler moves what it loads on at once, to where the product wants it. So as not to wait
    # there before the next load, what is loaded first is used after that, if only to be masked.
    v_held = tl.load(v_held, inside, 0.0, cache_modifier=".cg")
    k_held = tl.load(k_held, inside, 0.0, cache_modifier=".cg")
    v_held = tl.where(inside, v_held, 0.0)
    cos, sin = _load_phases(cos_ptr, sin_ptr, stream, phase_b, phase_m, M, K, TURN, BLOCK_M)
    if PDL:
        gdc_wait()
    q = _load_queries(q_ptr, q_m, cos, sin, M, TURN, BLOCK_M).to(DOT)
    k = tl.load(k_ptr + row * k_l, row < L, 0.0)
    v = tl.load(v_ptr + row * v_l, row < L, 0.0)
    q = tl.where(query < M, q, 0.0)
    k, v = tl.where(row < L, k, 0.0), tl.where(row < L, v, 0.0)
    tl.store(k_pages_ptr + own_page * k_page_p + row * k_page_l, k, row < L)
    tl.store(v_pages_ptr + own_page * v_page_p + row * v_page_l, v, row < L)

    read = _attend_both(
        q,
        k.to(DOT),
        v.to(DOT),
        latent < L,
        k_held.to(DOT),
        v_held.to(DOT),
        live,
        scale,
        out_inverse,
        INT8,
    )
    place = out_ptr + ((stream * M + query) * H + head) * K + column
    tl.store(place, read.to(out_ptr.dtype.element_ty), query < M)
