"""What the attention kernels in Gluon, Triton's lower level, share: one group of warps, 64 queries.

Formula: window_attention's softmax, over one tile of keys after the other; a peak is the largest
dot product so far, and what has been read and the sum of weights are relative to its weight.

Shapes: K width of a head.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from kernels.gluon_tile import nearest_int8_pairs


@gluon.constexpr_function  # type: ignore[untyped-decorator]
def layout_of(columns: int) -> gl.NVMMADistributedLayout:
    """Of a group's product with so many columns."""
    return gl.NVMMADistributedLayout([3, 0], [4, 1], [16, columns, 16])


@gluon.jit
def begin_scores(queries, keys):  # type: ignore[no-untyped-def]
    """Begins the dot products of (64, K) queries and (keys, K)."""
    ROWS: gl.constexpr = queries.shape[0]
    KEYS: gl.constexpr = keys.shape[0]
    none = gl.zeros([ROWS, KEYS], gl.float32, layout_of(KEYS))
    return warpgroup_mma(queries, keys.permute((1, 0)), none, use_acc=False, is_async=True)


@gluon.jit  # type: ignore[untyped-decorator]
def before_next_step(score, lead, L: gl.constexpr):  # type: ignore[no-untyped-def]
    """The scores of keys that rows see: up to their own step of L, from `lead` keys before them."""
    key = gl.arange(0, score.shape[1], gl.SliceLayout(0, score.type.layout))
    row = gl.arange(0, score.shape[0], gl.SliceLayout(1, score.type.layout))
    end = lead + (row // L + 1) * L
    return gl.where(key[None, :] < end[:, None], score, float("-inf"))


@gluon.jit  # type: ignore[untyped-decorator]
def nothing_read(K: gl.constexpr):  # type: ignore[no-untyped-def]
    """What 64 rows have read before the first key: (acc, total, peak).

    The peak is finite, so that keys that are not seen weigh nothing.
    """
    by_row: gl.constexpr = gl.SliceLayout(1, layout_of(K))
    acc = gl.zeros([64, K], gl.float32, layout_of(K))
    return acc, gl.zeros([64], gl.float32, by_row), gl.full([64], -1e30, gl.float32, by_row)


@gluon.jit
def begin_to_read(score, values, read, exponent):  # type: ignore[no-untyped-def]
    """Weighs a tile of keys, and begins to add its values.

    Args:
        score: (64, keys) dot products, -inf where a key is not seen.
        values: (keys, K).
        read: (acc, total, peak): (64, K) what has been read, and (64,) two numbers of each row.
        exponent: makes an exponent of two of a dot product.

    Returns:
        The next `read`, whose acc is under way.
    """
    acc, total, peak = read
    by_score: gl.constexpr = gl.SliceLayout(1, score.type.layout)
    by_row: gl.constexpr = gl.SliceLayout(1, acc.type.layout)
    operand: gl.constexpr = gl.DotOperandLayout(0, acc.type.layout, 2)
    higher = gl.maximum(peak, gl.convert_layout(gl.max(score, 1), by_row))
    shrink = gl.exp2((peak - higher) * exponent)
    highest = gl.convert_layout(higher * exponent, by_score)
    weight = gl.exp2(score * exponent - highest[:, None])
    total = total * shrink + gl.convert_layout(gl.sum(weight, 1), by_row)
    weight = gl.convert_layout(weight.to(gl.bfloat16), operand)
    acc = warpgroup_mma(weight, values, acc * shrink[:, None], is_async=True)
    return acc, total, higher


@gluon.jit  # type: ignore[untyped-decorator]
def read_start(  # type: ignore[no-untyped-def]
    queries, start, first, exponent, WINDOW: gl.constexpr, L: gl.constexpr
):
    """What rows of a sample, from the `first` on, read of the start: the L keys before it."""
    ROWS: gl.constexpr = queries.shape[0]
    K: gl.constexpr = queries.shape[1]
    START: gl.constexpr = start.shape[1]
    score = warpgroup_mma_wait(0, deps=(begin_scores(queries, start.index(0)),))
    by_row: gl.constexpr = gl.SliceLayout(1, score.type.layout)
    operand: gl.constexpr = gl.DotOperandLayout(0, layout_of(K), 2)
    key = gl.arange(0, START, gl.SliceLayout(0, score.type.layout))
    # The last step of a window has it no more in sight.
    seen = (key < L)[None, :] & ((first + gl.arange(0, ROWS, by_row)) // L < WINDOW - 1)[:, None]
    score = gl.where(seen, score, float("-inf"))
    peak = gl.maximum(gl.max(score, 1), -1e30)
    weight = gl.exp2(score * exponent - (peak * exponent)[:, None])
    acc = warpgroup_mma(
        gl.convert_layout(weight.to(gl.bfloat16), operand),
        start.index(1),
        gl.zeros([ROWS, K], gl.float32, layout_of(K)),
        use_acc=False,
        is_async=True,
    )
    by_row_of_all: gl.constexpr = gl.SliceLayout(1, layout_of(K))
    total = gl.convert_layout(gl.sum(weight, 1), by_row_of_all)
    peak = gl.convert_layout(peak, by_row_of_all)
    return warpgroup_mma_wait(0, deps=(acc,)), total, peak


@gluon.jit
def store_read(queries, read, out_ref, at, out_inverse):  # type: ignore[no-untyped-def]
    """Writes what rows have read in all, in the place of their queries, which have served."""
    ROWS: gl.constexpr = queries.shape[0]
    K: gl.constexpr = queries.shape[1]
    acc, total, _ = read
    y = acc * (1.0 / total)[:, None]
    if out_ref.dtype == gl.int8:
        layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, K // 2], gl.int16)
        even, odd = (y * out_inverse).reshape([ROWS, K // 2, 2]).split()
        pairs = queries._reinterpret(gl.int16, [ROWS, K // 2], layout)
        pairs.store(nearest_int8_pairs(even, odd))
        staged = queries._reinterpret(gl.int8, [ROWS, K], out_ref.layout)
    else:
        queries.store(y.to(gl.bfloat16))
        staged = queries
    fence_async_shared()
    tma.async_copy_shared_to_global(out_ref, at, staged)
