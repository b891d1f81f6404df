"""Softmax attention of one step's queries to cached keys and values: the streaming form.

Formula: as window_attention, for the newest step alone:

    out = softmax(q k^T / sqrt(K)) v over the keys of every cached step that may be attended.

The plain form gathers a stream's cached steps into a copy before it reads them. The kernels read
them where they lie, through a table of pages, a page the keys (or values) of one step of one
stream: every cached key and value is read once, and nothing but the result is written (Kwon et al.
2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention",
arXiv:2309.06180). `advance_step_attention` also turns the new step's queries and keys
(kernels.rotary) and stores its keys and values, in the same launch.

Shapes: B streams, M queries a stream, P pages, W pages that a stream may attend, L keys a page,
H heads of width K. A page number of -1 stands for no page.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import form_for
from kernels.rotary import rotate
from kernels.window_attention import LOG2_E, check_served, dot_type, kernel_serves, online_softmax


class StepConfig(NamedTuple):
    """How the kernels cut their work: a program serves one head of one stream.

    Attributes:
        block_keys: keys a tile, a power of two, 16 at least.
        num_warps: warps a program.
        num_stages: tiles in flight.
    """

    block_keys: int
    num_warps: int
    num_stages: int


def step_attention(q_BMHK: Tensor, k_BWLHK: Tensor, v_BWLHK: Tensor, mask_BW: Tensor) -> Tensor:
    """Reference form in plain PyTorch.

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


def paged_step_attention_reference(
    q_BMHK: Tensor, k_pages_PLHK: Tensor, v_pages_PLHK: Tensor, page_BW: Tensor
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        q_BMHK: M queries of every stream's newest step, turned.
        k_pages_PLHK: the cache of turned keys, of q's type.
        v_pages_PLHK: the cache of values.
        page_BW: int32 or int64 pages that a stream attends, in any order; -1 for none.

    Returns:
        (B, M, H, K); zero for a stream without a page.
    """
    live_BW = page_BW >= 0
    some_B = live_BW.any(1, keepdim=True)
    index_BW = page_BW.clamp(min=0).long()
    # A stream without a page attends any, lest it divide zero by zero, and then reads nothing.
    read = step_attention(q_BMHK, k_pages_PLHK[index_BW], v_pages_PLHK[index_BW], live_BW | ~some_B)
    return read.masked_fill(~some_B[:, :, None, None], 0.0)


def paged_step_attention(
    q_BMHK: Tensor, k_pages_PLHK: Tensor, v_pages_PLHK: Tensor, page_BW: Tensor
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = paged_step_attention_reference
    if form_for(q_BMHK, wins=kernel_serves(q_BMHK)) == "triton":
        form = paged_step_attention_triton
    return form(q_BMHK, k_pages_PLHK, v_pages_PLHK, page_BW)


def paged_step_attention_triton(
    q_BMHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    page_BW: Tensor,
    *,
    config: StepConfig | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        q_BMHK: bfloat16 or float32, its last dimension contiguous.
        k_pages_PLHK: of q's type, its last dimension contiguous.
        v_pages_PLHK: alike.
        page_BW: as the reference's.
        config: how to cut the work; by default what suits the shape.

    Returns:
        (B, M, H, K), contiguous.

    Raises:
        ValueError: the kernel does not serve such types, strides or width of head.
    """
    check_served(q_BMHK, k_pages_PLHK, v_pages_PLHK)
    n_batch, n_query, n_heads, head_dim = q_BMHK.shape
    out = torch.empty(q_BMHK.shape, device=q_BMHK.device, dtype=q_BMHK.dtype)
    if not out.numel():
        return out
    n_pages, n_key = page_BW.shape[1], k_pages_PLHK.shape[1]
    config = config or step_config(n_batch * n_heads, n_pages * n_key, q_BMHK.dtype)
    _paged_step_kernel[(n_batch * n_heads,)](
        q_BMHK,
        k_pages_PLHK,
        v_pages_PLHK,
        page_BW.contiguous(),
        out,
        head_dim**-0.5 * LOG2_E,
        *q_BMHK.stride()[:3],
        *k_pages_PLHK.stride()[:3],
        *v_pages_PLHK.stride()[:3],
        W=n_pages,
        M=n_query,
        L=n_key,
        H=n_heads,
        K=head_dim,
        DOT=dot_type(q_BMHK),
        BLOCK_M=_block(n_query),
        BLOCK_KEYS=config.block_keys,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return out


def advance_step_attention_reference(
    qkv_BL3HK: Tensor,
    cos_BK2: Tensor,
    sin_BK2: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    own_page_B: Tensor,
    page_BW: Tensor,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal. Stores the new step, then attends.

    Args:
        qkv_BL3HK: queries, keys and values of every stream's new step, not turned.
        cos_BK2: the step's rotary phases, from kernels.rotary.
        sin_BK2: alike.
        k_pages_PLHK: the cache of turned keys, of qkv's type; written in place.
        v_pages_PLHK: the cache of values; written in place.
        own_page_B: int32 or int64 page that each stream writes, never -1. No other stream of the
            call attends it; streams may share one only where it does not matter what it holds.
        page_BW: int32 or int64 pages that a stream attends, its own among them; -1 for none.

    Returns:
        (B, L, H, K).
    """
    phases = cos_BK2[:, None], sin_BK2[:, None]
    q, k, v = qkv_BL3HK.unbind(2)
    own_page_B = own_page_B.long()
    k_pages_PLHK[own_page_B] = rotate(k, phases)
    v_pages_PLHK[own_page_B] = v
    return paged_step_attention_reference(rotate(q, phases), k_pages_PLHK, v_pages_PLHK, page_BW)


def advance_step_attention(
    qkv_BL3HK: Tensor,
    cos_BK2: Tensor,
    sin_BK2: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    own_page_B: Tensor,
    page_BW: Tensor,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = advance_step_attention_reference
    if form_for(qkv_BL3HK, wins=kernel_serves(qkv_BL3HK)) == "triton":
        form = advance_step_attention_triton
    return form(qkv_BL3HK, cos_BK2, sin_BK2, k_pages_PLHK, v_pages_PLHK, own_page_B, page_BW)


def advance_step_attention_triton(
    qkv_BL3HK: Tensor,
    cos_BK2: Tensor,
    sin_BK2: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    own_page_B: Tensor,
    page_BW: Tensor,
    *,
    config: StepConfig | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        qkv_BL3HK: bfloat16 or float32, its last dimension contiguous.
        cos_BK2: float32.
        sin_BK2: float32.
        k_pages_PLHK: of qkv's type, its last dimension contiguous.
        v_pages_PLHK: alike.
        own_page_B: as the reference's.
        page_BW: as the reference's; a stream attends its own page even if it is not among them.
        config: how to cut the work; by default what suits the shape.

    Returns:
        (B, L, H, K), contiguous.

    Raises:
        ValueError: the kernel does not serve such types, strides or width of head.
    """
    check_served(qkv_BL3HK, k_pages_PLHK, v_pages_PLHK)
    n_batch, n_key, _, n_heads, head_dim = qkv_BL3HK.shape
    shape = (n_batch, n_key, n_heads, head_dim)
    out = torch.empty(shape, device=qkv_BL3HK.device, dtype=qkv_BL3HK.dtype)
    if not out.numel():
        return out
    n_pages = page_BW.shape[1]
    config = config or step_config(n_batch * n_heads, n_pages * n_key, qkv_BL3HK.dtype)
    _advance_step_kernel[(n_batch * n_heads,)](
        qkv_BL3HK,
        cos_BK2.contiguous(),
        sin_BK2.contiguous(),
        k_pages_PLHK,
        v_pages_PLHK,
        own_page_B.contiguous(),
        page_BW.contiguous(),
        out,
        head_dim**-0.5 * LOG2_E,
        *qkv_BL3HK.stride()[:4],
        *k_pages_PLHK.stride()[:3],
        *v_pages_PLHK.stride()[:3],
        W=n_pages,
        L=n_key,
        H=n_heads,
        K=head_dim,
        DOT=dot_type(qkv_BL3HK),
        BLOCK_L=_block(n_key),
        BLOCK_KEYS=config.block_keys,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return out


def step_config(n_programs: int, n_keys: int, dtype: torch.dtype) -> StepConfig:
    """How to cut the work of n_programs = B * H heads of n_keys = W * L cached keys each."""
    if dtype == torch.float32:
        # Products of float32 run outside the tensor cores, in registers.
        return StepConfig(min(_block(n_keys), 32), num_warps=4, num_stages=2)
    if n_programs >= 512:
        return StepConfig(min(_block(n_keys), 64), num_warps=4, num_stages=2)
    # A few programs do not fill the chip: each must have all of its loads in flight at once.
    return StepConfig(min(_block(n_keys), 256), num_warps=8, num_stages=2)


def _block(count: int) -> int:
    """The power of two that holds a count, at least what a matrix product takes."""
    return max(16, int(triton.next_power_of_2(count)))


@triton.jit  # type: ignore[untyped-decorator]
def _attend_pages(  # type: ignore[no-untyped-def]
    q,
    acc,
    total,
    peak,
    k_ptr,
    v_ptr,
    page_ptr,
    skipped_page,
    k_p,
    k_l,
    v_p,
    v_l,
    W: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Adds the W pages at page_ptr, but for one, to what the queries q (rows, K) have read."""
    column = tl.arange(0, K)[None, :]
    for start in tl.range(0, W * L, BLOCK_KEYS):
        key = start + tl.arange(0, BLOCK_KEYS)
        page = tl.load(page_ptr + key // L, key < W * L, -1).to(tl.int64)
        live = (page >= 0) & (page != skipped_page)
        inside = live[:, None]
        k_row = k_ptr + page * k_p + (key % L) * k_l
        v_row = v_ptr + page * v_p + (key % L) * v_l
        k = tl.load(k_row[:, None] + column, inside, 0.0).to(q.dtype)
        v = tl.load(v_row[:, None] + column, inside, 0.0).to(q.dtype)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        scores = tl.where(live[None, :], scores, float("-inf"))
        acc, total, peak = online_softmax(scores, v, acc, total, peak)
    return acc, total, peak


@triton.jit  # type: ignore[untyped-decorator]
def _store_read(out_row, acc, total, inside, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Writes what the queries have read: zero where they saw no key."""
    read = acc / tl.maximum(total, 1e-30)[:, None]
    column = tl.arange(0, K)[None, :]
    tl.store(out_row[:, None] + column, read.to(out_row.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _paged_step_kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    v_ptr,
    page_ptr,
    out_ptr,
    scale,
    q_b,
    q_m,
    q_h,
    k_p,
    k_l,
    k_h,
    v_p,
    v_l,
    v_h,
    W: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """One head of one stream; q_b .. v_h are strides."""
    stream = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    row = tl.arange(0, BLOCK_M)
    inside = (row < M)[:, None]
    q_row = q_ptr + stream * q_b + head * q_h + row * q_m
    q = tl.load(q_row[:, None] + tl.arange(0, K)[None, :], inside, 0.0)
    acc, total, _ = _attend_pages(
        (q.to(tl.float32) * scale).to(DOT),
        tl.zeros((BLOCK_M, K), tl.float32),
        tl.zeros((BLOCK_M,), tl.float32),
        tl.full((BLOCK_M,), -1e30, tl.float32),
        k_ptr + head * k_h,
        v_ptr + head * v_h,
        page_ptr + stream * W,
        -1,
        k_p,
        k_l,
        v_p,
        v_l,
        W,
        L,
        K,
        BLOCK_KEYS,
    )
    _store_read(out_ptr + ((stream * M + row) * H + head) * K, acc, total, inside, K)


@triton.jit  # type: ignore[untyped-decorator]
def _turned(x_row, cos, sin, inside, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows (rows, K) turned by phases (1, K), sin's sign that of the column's other term."""
    column = tl.arange(0, K)[None, :]
    x = tl.load(x_row[:, None] + column, inside, 0.0).to(tl.float32)
    # A pair's other column: a second load, served by the cache, spares a shuffle of registers.
    other = tl.load(x_row[:, None] + (column ^ 1), inside, 0.0).to(tl.float32)
    return x * cos + other * sin


@triton.jit  # type: ignore[untyped-decorator]
def _advance_step_kernel(  # type: ignore[no-untyped-def]
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    k_ptr,
    v_ptr,
    own_page_ptr,
    page_ptr,
    out_ptr,
    scale,
    x_b,
    x_l,
    x_part,
    x_h,
    k_p,
    k_l,
    k_h,
    v_p,
    v_l,
    v_h,
    W: tl.constexpr,
    L: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """One head of one stream; x_b .. v_h are strides, x_part that between q, k and v."""
    stream = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    k_ptr += head * k_h
    v_ptr += head * v_h
    own_page = tl.load(own_page_ptr + stream).to(tl.int64)
    row = tl.arange(0, BLOCK_L)
    inside = (row < L)[:, None]
    column = tl.arange(0, K)[None, :]
    cos = tl.load(cos_ptr + stream * (K // 2) + column // 2)
    sin = tl.load(sin_ptr + stream * (K // 2) + column // 2)
    sin = tl.where(column % 2 == 0, -sin, sin)
    q_row = qkv_ptr + stream * x_b + head * x_h + row * x_l
    q = (_turned(q_row, cos, sin, inside, K) * scale).to(DOT)
    stored = k_ptr.dtype.element_ty
    k = _turned(q_row + x_part, cos, sin, inside, K).to(stored)
    v = tl.load((q_row + 2 * x_part)[:, None] + column, inside, 0.0)
    k_row = k_ptr + own_page * k_p + row * k_l
    v_row = v_ptr + own_page * v_p + row * v_l
    tl.store(k_row[:, None] + column, k, inside)
    tl.store(v_row[:, None] + column, v, inside)

    # The new step is read from registers, never from the page that was just written.
    scores = tl.dot(q, tl.trans(k.to(DOT)), input_precision="ieee")
    acc, total, peak = online_softmax(
        tl.where((row < L)[None, :], scores, float("-inf")),
        v.to(DOT),
        tl.zeros((BLOCK_L, K), tl.float32),
        tl.zeros((BLOCK_L,), tl.float32),
        tl.full((BLOCK_L,), -1e30, tl.float32),
    )
    acc, total, _ = _attend_pages(
        q,
        acc,
        total,
        peak,
        k_ptr,
        v_ptr,
        page_ptr + stream * W,
        own_page,
        k_p,
        k_l,
        v_p,
        v_l,
        W,
        L,
        K,
        BLOCK_KEYS,
    )
    _store_read(out_ptr + ((stream * L + row) * H + head) * K, acc, total, inside, K)
