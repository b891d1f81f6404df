"""One of one_window's kernels, for few windows: a program takes a block of queries.

With few windows most of the time goes by in waiting, for one load after the other and one tile of
keys after the other. So a program asks for its queries and for all the keys and values that they
see at once, and its two groups of warps have every other tile of keys each, the second also the
start; in the end the first puts together what both have read.

Sharing keys among groups is Dao's "Flash-Decoding" (2023), within one program.

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
    layout_of,
    nothing_read,
    read_start,
    store_read,
)


@gluon.jit  # type: ignore[untyped-decorator]
def split_window_kernel(  # type: ignore[no-untyped-def]
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
    """One block of one head of one sample; arguments as whole_window's."""
    ROWS: gl.constexpr = q_ref.block_shape[0]
    K: gl.constexpr = q_ref.block_shape[1]
    START: gl.constexpr = start_k_ref.block_shape[0]
    gdc_launch_dependents()
    q = gl.allocate_shared_memory(gl.bfloat16, [ROWS, K], q_ref.layout)
    k = gl.allocate_shared_memory(gl.bfloat16, [BLOCKS, ROWS, K], k_ref.layout)
    v = gl.allocate_shared_memory(gl.bfloat16, [BLOCKS, ROWS, K], v_ref.layout)
    start = gl.allocate_shared_memory(gl.bfloat16, [2, START, K], start_k_ref.layout)
    # So that eight rows of a warp's product fall on different banks.
    spread: gl.constexpr = gl.SwizzledSharedLayout(8, 1, K // 8, [1, 0])
    of_rows: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    acc = gl.allocate_shared_memory(gl.float32, [ROWS, K], spread)
    total = gl.allocate_shared_memory(gl.float32, [ROWS], of_rows)
    peak = gl.allocate_shared_memory(gl.float32, [ROWS], of_rows)
    # One for each tile of keys and each of values, for the queries, the start, and what the second
    # group has read.
    here = gl.allocate_shared_memory(gl.int64, [2 * BLOCKS + 3, 1], mbarrier.MBarrierLayout())
    for n in gl.static_range(2 * BLOCKS + 3):
        mbarrier.init(here.index(n), count=1)
    # The last blocks see the most: they start first.
    block = BLOCKS - 1 - gl.program_id(0) % BLOCKS
    column = gl.program_id(0) // BLOCKS % H * K
    first_row = gl.program_id(0) // (BLOCKS * H) * (BLOCKS * ROWS)
    # No kernel is writing the start: it may come before whatever the kernel before still does.
    bar = here.index(2 * BLOCKS + 1)
    mbarrier.expect(bar, 2 * start_k_ref.block_type.nbytes)
    tma.async_copy_global_to_shared(start_k_ref, [0, column], bar, start.index(0))
    tma.async_copy_global_to_shared(start_v_ref, [0, column], bar, start.index(1))
    gdc_wait()
    bar = here.index(2 * BLOCKS)
    mbarrier.expect(bar, q_ref.block_type.nbytes)
    tma.async_copy_global_to_shared(q_ref, [first_row + block * ROWS, column], bar, q)
    for tile in range(block + 1):
        at = [first_row + tile * ROWS, column]
        mbarrier.expect(here.index(2 * tile), k_ref.block_type.nbytes)
        tma.async_copy_global_to_shared(k_ref, at, here.index(2 * tile), k.index(tile))
        mbarrier.expect(here.index(2 * tile + 1), v_ref.block_type.nbytes)
        tma.async_copy_global_to_shared(v_ref, at, here.index(2 * tile + 1), v.index(tile))
    place = (block, first_row, column, out_ref, exponent, out_inverse)
    shared = (q, k, v, start, acc, total, peak, here)
    gl.warp_specialize(
        [
            (_attend_half, (place, shared, WINDOW, L, 0)),
            (_attend_half, (place, shared, WINDOW, L, 1)),
        ],
        [4],
        [REGISTERS],
    )


@gluon.jit  # type: ignore[untyped-decorator]
def _attend_half(  # type: ignore[no-untyped-def]
    place, shared, WINDOW: gl.constexpr, L: gl.constexpr, GROUP: gl.constexpr
):
    """Every other tile of keys; the second group's also the start, the first's then all."""
    block, first_row, column, out_ref, exponent, out_inverse = place
    q, k, v, start, other_acc, other_total, other_peak, here = shared
    ROWS: gl.constexpr = q.shape[0]
    K: gl.constexpr = q.shape[1]
    BLOCKS: gl.constexpr = k.shape[0]
    mbarrier.wait(here.index(2 * BLOCKS), 0)
    if GROUP == 0:
        acc, total, peak = nothing_read(K)
    else:
        mbarrier.wait(here.index(2 * BLOCKS + 1), 0)
        acc, total, peak = read_start(q, start, block * ROWS, exponent, WINDOW, L)
    for tile in range(GROUP, block + 1, 2):
        mbarrier.wait(here.index(2 * tile), 0)
        score = warpgroup_mma_wait(0, deps=(begin_scores(q, k.index(tile)),))
        score = before_next_step(score, (block - tile) * ROWS, L)
        mbarrier.wait(here.index(2 * tile + 1), 0)
        acc, total, peak = begin_to_read(score, v.index(tile), (acc, total, peak), exponent)
        acc = warpgroup_mma_wait(0, deps=(acc,))
    theirs = here.index(2 * BLOCKS + 2)
    if GROUP == 1:
        other_acc.store(acc)
        other_total.store(total)
        other_peak.store(peak)
        mbarrier.arrive(theirs, count=1)
    else:
        by_row: gl.constexpr = gl.SliceLayout(1, layout_of(K))
        mbarrier.wait(theirs, 0)
        their_peak = other_peak.load(by_row)
        higher = gl.maximum(peak, their_peak)
        share = gl.exp2((peak - higher) * exponent)
        their_share = gl.exp2((their_peak - higher) * exponent)
        acc = acc * share[:, None] + other_acc.load(layout_of(K)) * their_share[:, None]
        total = total * share + other_total.load(by_row) * their_share
        at = [first_row + block * ROWS, column]
        store_read(q, (acc, total, higher), out_ref, at, out_inverse)
        tma.store_wait(0)
