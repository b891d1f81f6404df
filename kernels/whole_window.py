"""One of one_window's kernels, for many windows: a program takes one head of a sample.

A program asks for its queries, keys and values at once, each of which is so read once and from then
on shared. Two groups of warps take the blocks of queries: the last sees the most keys and the first
the fewest, so that who takes one takes the other, and both groups have equally much to do. Two
programs share a multiprocessor, and one computes while the other loads.

Shapes: L queries and keys a step, H heads of width K.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma_wait
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.gluon_softmax import (
    before_next_step,
    begin_scores,
    begin_to_read,
    read_start,
    store_read,
)


@gluon.jit  # type: ignore[untyped-decorator]
def whole_window_kernel(  # type: ignore[no-untyped-def]
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
    """All blocks of one head of one sample.

    Args:
        q_ref: (B R, H K) queries, in blocks of 64 rows of one head.
        k_ref: keys, likewise.
        v_ref: values, likewise.
        start_k_ref: (L, H K) keys of the start, in one block for each head.
        start_v_ref: its values, likewise.
        out_ref: what queries read, as these; bfloat16 or int8.
        exponent: makes an exponent of two of a dot product.
        out_inverse: steps of an int8 result in one.
        WINDOW: steps that a query sees, its own included.
        L: queries and keys a step.
        H: heads.
        BLOCKS: blocks of a sample.
        REGISTERS: of a thread.
    """
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
    """One block of queries: the start, then from the first keys to its own."""
    q, k, v, start, here = shared
    first_row, column, out_ref, exponent, out_inverse = place
    ROWS: gl.constexpr = q.shape[1]
    queries = q.index(BLOCK)
    mbarrier.wait(here.index(3 * q.shape[0]), 0)
    mbarrier.wait(here.index(3 * BLOCK), 0)
    # The start comes first: its values are there while the other keys are on their way.
    acc, total, peak = read_start(queries, start, BLOCK * ROWS, exponent, WINDOW, L)
    mbarrier.wait(here.index(1), 0)
    score = begin_scores(queries, k.index(0))
    for tile in gl.static_range(BLOCK + 1):
        score, acc = warpgroup_mma_wait(0, deps=(score, acc))
        if tile == BLOCK:
            score = before_next_step(score, 0, L)
        mbarrier.wait(here.index(3 * tile + 2), 0)
        acc, total, peak = begin_to_read(score, v.index(tile), (acc, total, peak), exponent)
        if tile < BLOCK:
            mbarrier.wait(here.index(3 * (tile + 1) + 1), 0)
            score = begin_scores(queries, k.index(tile + 1))
    acc = warpgroup_mma_wait(0, deps=(acc,))
    at = [first_row + BLOCK * ROWS, column]
    store_read(queries, (acc, total, peak), out_ref, at, out_inverse)
