"""Attention of many windows on Hopper, of which each fits a multiprocessor as a whole.

Formula: that of window_attention with a start, where all steps lie within one window.

A program takes one head of one sample and asks for its queries, keys and values at once, each of
which is so read once and from then on shared. Two groups of warps take the blocks of queries: the
last sees the most keys and the first the fewest, so that who takes one takes the other, and both
groups have equally much to do. Two programs share a multiprocessor, and one computes while the
other loads. Groups of warps are beyond Triton's language; this is in Gluon, its lower level.

Shapes: B samples, S steps, L queries and keys a step, H heads of width K, R = S L rows a sample.
"""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.gluon_tile import blocks, nearest_int8_pairs, on_hopper
from kernels.matmul_tile import aligned

_ROWS = 64
# Blocks of rows: so many that there is work for both groups, and two programs find room.
_BLOCKS = (2, 3, 4)
_WIDTHS = (32, 64)
# The tensor cores' least depth of a product: the most keys of a start.
_START = 16
# With fewer programs, window_attention's smaller ones are done sooner.
LEAST_PROGRAMS = 128
# A thread's registers where two programs of two groups share a multiprocessor's.
_REGISTERS = 128


def fits(shape: tuple[int, ...], window: int) -> bool:
    """Whether the kernel attends queries and keys of this shape (B, S, L, H, K), and soonest.

    Args:
        shape: of queries, keys and values alike.
        window: steps that a query sees, its own included.
    """
    samples, steps, rows, heads, width = shape
    # A step is in one block.
    whole = window >= steps and not _ROWS % rows and steps * rows / _ROWS in _BLOCKS
    return whole and rows <= _START and width in _WIDTHS and samples * heads >= LEAST_PROGRAMS


def serves(q_BSLHK: Tensor, k_BSLHK: Tensor, v_BSLHK: Tensor, window: int) -> bool:
    """Whether the kernel `fits`, on this device and these types and places in memory."""
    inputs = q_BSLHK, k_BSLHK, v_BSLHK
    if not on_hopper(q_BSLHK) or not fits(tuple(k_BSLHK.shape), window):
        return False
    alike = all(x.shape == k_BSLHK.shape and x.dtype == torch.bfloat16 for x in inputs)
    return alike and all(_is_matrix(x) and aligned(_rows(x)) for x in inputs)


def whole_window(
    q_BSLHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    start: tuple[Tensor, Tensor],
    window: int,
    out_scale: float | None,
    exponent: float,
    out: Tensor,
) -> None:
    """The attention, where `serves` says so.

    Args:
        q_BSLHK: bfloat16 queries.
        k_BSLHK: keys of every step.
        v_BSLHK: values of every step.
        start: contiguous keys and values (L, H, K) of the step before the first. No kernel that is
            still running may be writing them.
        window: steps that a query sees, its own included.
        out_scale: the scale of an int8 result, or None.
        exponent: makes an exponent of two of a dot product.
        out: (B, S, L, H, K) contiguous, bfloat16 or int8, to write to.
    """
    samples, steps, rows, heads, width = q_BSLHK.shape
    _whole_window_kernel[(samples * heads,)](
        *(blocks(_rows(x), _ROWS, width) for x in (q_BSLHK, k_BSLHK, v_BSLHK)),
        *(blocks(x.flatten(1), _START, width) for x in start),
        blocks(_rows(out), _ROWS, width),
        exponent,
        0.0 if out_scale is None else 1.0 / out_scale,
        WINDOW=window,
        L=rows,
        H=heads,
        BLOCKS=steps * rows // _ROWS,
        REGISTERS=_REGISTERS,
        num_warps=4,
        maxnreg=_REGISTERS,
        launch_pdl=True,
    )


def _is_matrix(x_BSLHK: Tensor) -> bool:
    """Whether all rows are evenly spaced, each with its heads side by side."""
    _, steps, rows, _, width = x_BSLHK.shape
    *_, row, head, one = x_BSLHK.stride()
    return x_BSLHK.stride() == (steps * rows * row, rows * row, row, width, one) and (
        head,
        one,
    ) == (width, 1)


def _rows(x_BSLHK: Tensor) -> Tensor:
    """(B R, H K) in place."""
    return x_BSLHK.flatten(3).flatten(0, 2)


@gluon.jit  # type: ignore[untyped-decorator]
def _whole_window_kernel(  # type: ignore[no-untyped-def]
    q_ref,
    k_ref,
    v_ref,
    start_k_ref,
    start_v_ref,
    out_ref,
    exponent,
    out_inverse,
    WINDOW: gl.constexpr,
    L: gl.constexpr,
    H: gl.constexpr,
    BLOCKS: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    ROWS: gl.constexpr = q_ref.block_shape[0]
    K: gl.constexpr = q_ref.block_shape[1]
    gdc_launch_dependents()
    q = gl.allocate_shared_memory(gl.bfloat16, [BLOCKS, ROWS, K], q_ref.layout)
    k = gl.allocate_shared_memory(gl.bfloat16, [BLOCKS, ROWS, K], k_ref.layout)
    v = gl.allocate_shared_memory(gl.bfloat16, [BLOCKS, ROWS, K], v_ref.layout)
    START: gl.constexpr = start_k_ref.block_shape[0]
    start = gl.allocate_shared_memory(gl.bfloat16, [2, START, K], start_k_ref.layout)
    # One for each block of queries, keys and values, and one for the start.
    here = gl.allocate_shared_memory(gl.int64, [3 * BLOCKS + 1, 1], mbarrier.MBarrierLayout())
    for n in gl.static_range(3 * BLOCKS + 1):
        mbarrier.init(here.index(n), count=1)
    column = gl.program_id(0) % H * K
    # No kernel is writing the start: it may come before whatever the kernel before still does.
    bar = here.index(3 * BLOCKS)
    mbarrier.expect(bar, 2 * start_k_ref.block_type.nbytes)
    tma.async_copy_global_to_shared(start_k_ref, [0, column], bar, start.index(0))
    tma.async_copy_global_to_shared(start_v_ref, [0, column], bar, start.index(1))
    first_row = gl.program_id(0) // H * (BLOCKS * ROWS)
    gdc_wait()
    # In the order in which they are wanted.
    for n in gl.static_range(BLOCKS):
        _load(BLOCKS - 1 - n, 0, first_row, column, q_ref, q, here)
        _load(n, 1, first_row, column, k_ref, k, here)
        _load(n, 2, first_row, column, v_ref, v, here)
    shared = (q, k, v, start, here)
    place = (first_row, column, out_ref, exponent, out_inverse)
    gl.warp_specialize(
        [
            (_attend_blocks, (place, shared, WINDOW, L, 0)),
            (_attend_blocks, (place, shared, WINDOW, L, 1)),
        ],
        [4],
        [REGISTERS],
    )


@gluon.jit  # type: ignore[untyped-decorator]
def _load(  # type: ignore[no-untyped-def]
    block: gl.constexpr, kind: gl.constexpr, first_row, column, ref, to, here
):
    """Asks for a block of rows; its barrier is the kind's one of that block."""
    bar = here.index(3 * block + kind)
    mbarrier.expect(bar, ref.block_type.nbytes)
    at = [first_row + block * ref.block_shape[0], column]
    tma.async_copy_global_to_shared(ref, at, bar, to.index(block))


@gluon.jit  # type: ignore[untyped-decorator]
def _attend_blocks(  # type: ignore[no-untyped-def]
    place, shared, WINDOW: gl.constexpr, L: gl.constexpr, GROUP: gl.constexpr
):
    """A group's blocks."""
    q, _, _, _, _ = shared
    BLOCKS: gl.constexpr = q.shape[0]
    for n in gl.static_range((BLOCKS + 1) // 2):
        if _nth_block(n, GROUP, BLOCKS) >= 0:
            _attend(place, shared, WINDOW, L, _nth_block(n, GROUP, BLOCKS))
    tma.store_wait(0)


@gluon.constexpr_function  # type: ignore[untyped-decorator]
def _nth_block(n: int, group: int, count: int) -> int:
    """Of every two blocks from the last on a group has one, and the other of the next two."""
    return count - 1 - 2 * n - (group if n % 2 == 0 else 1 - group)


@gluon.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    place, shared, WINDOW: gl.constexpr, L: gl.constexpr, BLOCK: gl.constexpr
):
    """One block of queries, from the first keys to its own, then the start's."""
    q, k, v, start, here = shared
    first_row, column, out_ref, exponent, out_inverse = place
    ROWS: gl.constexpr = q.shape[1]
    K: gl.constexpr = q.shape[2]
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    reads: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, K, 16])
    by_row: gl.constexpr = gl.SliceLayout(1, scores)
    row = gl.arange(0, ROWS, by_row)
    acc = gl.zeros([ROWS, K], gl.float32, reads)
    total = gl.zeros([ROWS], gl.float32, by_row)
    # Finite, so that keys that are not seen weigh nothing.
    peak = gl.full([ROWS], -1e30, gl.float32, by_row)
    queries = q.index(BLOCK)
    mbarrier.wait(here.index(3 * BLOCK), 0)
    mbarrier.wait(here.index(1), 0)
    score = _scores(queries, k.index(0), scores)
    for tile in gl.static_range(BLOCK + 1):
        score, acc = warpgroup_mma_wait(0, deps=(score, acc))
        if tile == BLOCK:
            key = gl.arange(0, ROWS, gl.SliceLayout(0, scores))
            seen = (key // L)[None, :] <= (row // L)[:, None]
            score = gl.where(seen, score, float("-inf"))
        weight, total, peak, shrink = _weights(score, total, peak, exponent)
        acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, reads))[:, None]
        mbarrier.wait(here.index(3 * tile + 2), 0)
        acc = _add(weight, v.index(tile), acc, reads)
        if tile < BLOCK:
            mbarrier.wait(here.index(3 * (tile + 1) + 1), 0)
            score = _scores(queries, k.index(tile + 1), scores)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    START: gl.constexpr = start.shape[1]
    few: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, START, 16])
    mbarrier.wait(here.index(3 * q.shape[0]), 0)
    score = warpgroup_mma_wait(0, deps=(_scores(queries, start.index(0), few),))
    key = gl.arange(0, START, gl.SliceLayout(0, few))
    step = (BLOCK * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, few))) // L
    seen = (key < L)[None, :] & (step < WINDOW - 1)[:, None]
    score = gl.where(seen, score, float("-inf"))
    total = gl.convert_layout(total, gl.SliceLayout(1, few))
    peak = gl.convert_layout(peak, gl.SliceLayout(1, few))
    weight, total, peak, shrink = _weights(score, total, peak, exponent)
    acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, reads))[:, None]
    acc = _add(weight, start.index(1), acc, reads)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    read = acc * gl.convert_layout(1.0 / total, gl.SliceLayout(1, reads))[:, None]
    # The queries have served: what they read takes their place.
    if out_ref.dtype == gl.int8:
        layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, K // 2], gl.int16)
        even, odd = (read * out_inverse).reshape([ROWS, K // 2, 2]).split()
        pairs = queries._reinterpret(gl.int16, [ROWS, K // 2], layout)
        pairs.store(nearest_int8_pairs(even, odd))
        staged = queries._reinterpret(gl.int8, [ROWS, K], out_ref.layout)
    else:
        queries.store(read.to(gl.bfloat16))
        staged = queries
    fence_async_shared()
    tma.async_copy_shared_to_global(out_ref, [first_row + BLOCK * ROWS, column], staged)


@gluon.jit  # type: ignore[untyped-decorator]
def _scores(queries, keys, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Begins the dot products of (rows, K) queries and (keys, K)."""
    ROWS: gl.constexpr = queries.shape[0]
    KEYS: gl.constexpr = keys.shape[0]
    none = gl.zeros([ROWS, KEYS], gl.float32, layout)
    return warpgroup_mma(queries, keys.permute((1, 0)), none, use_acc=False, is_async=True)


@gluon.jit
def _weights(score, total, peak, exponent):  # type: ignore[no-untyped-def]
    """Weights of a tile of keys relative to the peak, and the next total, peak and shrinking."""
    higher = gl.maximum(peak, gl.max(score, 1))
    shrink = gl.exp2((peak - higher) * exponent)
    weight = gl.exp2(score * exponent - (higher * exponent)[:, None])
    return weight, total * shrink + gl.sum(weight, 1), higher, shrink


@gluon.jit  # type: ignore[untyped-decorator]
def _add(weight, values, acc, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Begins to add weighted values (keys, K) to what the rows have read."""
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    weight = gl.convert_layout(weight.to(gl.bfloat16), operand)
    return warpgroup_mma(weight, values, acc, is_async=True)
