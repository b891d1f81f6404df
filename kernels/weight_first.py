"""Product of a few hundred rows on Hopper, whose weight is there before the rows are.

With so few rows a product is short, and most of it is waiting for operands. But weights are known
long before: a program asks for its part of the weight in whole depth, then waits for the kernel
that makes its rows, and then has only those to wait for. Triton's loops load both alike, and
nothing before the wait; so this is in Gluon, its lower level. What follows the sums is the caller's
choice of norm_linear's, a norm and an activation or a turn, or linear_add's, a residual, with the
squares of the rows' parts.

The gain is what a weight's way from memory takes, which a benchmark of one product hides: there it
lies in the cache. It shows in a forward, which reads each weight once.

Shapes: M rows, K width of a row, N outputs, P parts of a row.
"""

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.gluon_tile import blocks, gelu_by_tanh, on_hopper
from kernels.matmul_tile import PROCESSORS, aligned
from kernels.product_epilogue import Added, Normed, load_phases, sum_of_parts, turned
from kernels.turn import Turn, turn_arguments

# With fewer rows whole-depth kernels are faster, with more those that go through tiles in a loop.
LEAST_ROWS, MOST_ROWS = 65, 320
_ROWS, _CHUNK = 64, 128
# A multiprocessor's shared memory, of which every program's barriers and the like take a little.
_SHARED_BYTES = 226 * 1024
_CHUNK_BYTES = 2 * _ROWS * _CHUNK
_LEAST_STAGES = 2


def stages_for(rows: int, columns: int, depth: int, width: int) -> int:
    """Chunks of the rows in flight, or 0 where the kernel does not make the product.

    Args:
        rows: M of the product.
        columns: N of the product.
        depth: K of the product.
        width: outputs of a program.
    """
    if not LEAST_ROWS <= rows <= MOST_ROWS or columns % width or depth % _CHUNK or not depth:
        return 0
    programs = triton.cdiv(rows, _ROWS) * (columns // width)
    # With more programs than multiprocessors, two must find room on one.
    room = _SHARED_BYTES // (2 if programs > PROCESSORS else 1) - 2 * width * depth
    stages = min(room // _CHUNK_BYTES, depth // _CHUNK)
    return stages if stages >= min(_LEAST_STAGES, depth // _CHUNK) else 0


def serves(x_MK: Tensor, weight_NK: Tensor, width: int, turn: Turn | None = None) -> bool:
    """Whether the kernel makes a product of these two-dimensional matrices on their device.

    Args:
        x_MK: the rows.
        weight_NK: the weight.
        width: outputs of a program.
        turn: how the leading columns turn, or None.
    """
    if not on_hopper(x_MK) or x_MK.dtype != torch.bfloat16:
        return False
    (rows, depth), columns = x_MK.shape, len(weight_NK)
    turns = turn is None or turn.columns % width == 0
    loads = aligned(x_MK) and aligned(weight_NK)
    return turns and loads and stages_for(rows, columns, depth, width) > 0


def weight_first(
    x_MK: Tensor, weight_NK: Tensor, follows: Normed | Added, width: int, out_MN: Tensor
) -> None:
    """The product, where `serves` says so.

    Args:
        x_MK: (M, K) bfloat16, contiguous in K.
        weight_NK: (N, K) likewise. No kernel that is still running may be writing it.
        follows: what follows the sums.
        width: outputs of a program; those of a part, where squares are written.
        out_MN: (M, N) contiguous, to write to; may be the residual itself.
    """
    (rows, depth), columns = x_MK.shape, len(weight_NK)
    normed = follows if isinstance(follows, Normed) else None
    added = follows if isinstance(follows, Added) else None
    parts = 0 if normed is None else normed.squares_MP.shape[1]
    _weight_first_kernel[(triton.cdiv(rows, _ROWS) * (columns // width),)](
        blocks(x_MK, _ROWS, _CHUNK),
        blocks(weight_NK, width, _CHUNK),
        None if normed is None else normed.squares_MP,
        None if added is None else added.residual,
        out_MN,
        None if added is None else added.squares_MP,
        rows,
        columns,
        rows if added is None else added.rows,
        0 if added is None else added.step,
        0.0 if normed is None else normed.eps,
        CHUNKS=depth // _CHUNK,
        STAGES=stages_for(rows, columns, depth, width),
        PARTS=parts,
        GELU=normed is not None and normed.gelu,
        num_warps=4,
        launch_pdl=True,
        **turn_arguments(None if normed is None else normed.turn),
    )


@gluon.jit  # type: ignore[untyped-decorator]
def _weight_first_kernel(  # type: ignore[no-untyped-def]
    x_ref,
    weight_ref,
    squares_ptr,
    residual_ptr,
    out_ptr,
    out_squares_ptr,
    rows,
    columns,
    block_rows,
    block_step,
    eps,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    CHUNKS: gl.constexpr,
    STAGES: gl.constexpr,
    PARTS: gl.constexpr,
    HEAD: gl.constexpr,
    PHASE_ROWS: gl.constexpr,
    GELU: gl.constexpr,
):
    ROWS: gl.constexpr = x_ref.block_shape[0]
    CHUNK: gl.constexpr = x_ref.block_shape[1]
    COLUMNS: gl.constexpr = weight_ref.block_shape[0]
    sums: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    gdc_launch_dependents()
    x = gl.allocate_shared_memory(gl.bfloat16, [STAGES, ROWS, CHUNK], x_ref.layout)
    weight = gl.allocate_shared_memory(gl.bfloat16, [CHUNKS, COLUMNS, CHUNK], weight_ref.layout)
    x_here = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    weight_here = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(x_here.index(stage), count=1)
    mbarrier.init(weight_here.index(0), count=1)
    blocks_m = gl.cdiv(rows, ROWS)
    first_row = gl.program_id(0) % blocks_m * ROWS
    first_column = gl.program_id(0) // blocks_m * COLUMNS
    mbarrier.expect(weight_here.index(0), CHUNKS * weight_ref.block_type.nbytes)
    for chunk in gl.static_range(CHUNKS):
        at = [first_column, chunk * CHUNK]
        tma.async_copy_global_to_shared(weight_ref, at, weight_here.index(0), weight.index(chunk))
    row = first_row + gl.arange(0, ROWS, gl.SliceLayout(1, sums))
    column = first_column + gl.arange(0, COLUMNS, gl.SliceLayout(0, sums))
    # Past the last row comes the last row again; it is never stored.
    inside = gl.minimum(row, rows - 1)

    gdc_wait()
    for chunk in gl.static_range(STAGES):
        _load_rows(chunk, first_row, x_ref, x, x_here)
    if squares_ptr is not None:
        # A row a thread.
        each = first_row + gl.arange(0, ROWS, gl.BlockedLayout([1], [32], [4], [0]))
        squares = sum_of_parts(squares_ptr, gl.minimum(each, rows - 1), PARTS)
        factor = gl.convert_layout(gl.rsqrt(squares / (CHUNKS * CHUNK) + eps), row.type.layout)
    if residual_ptr is not None:
        place = inside // block_rows * block_step + inside % block_rows * columns
        residual = gl.load(residual_ptr + place[:, None] + column[None, :])
    if HEAD:
        turn = (cos_ptr, sin_ptr, n_phases, turned_columns)
        cos, sin = load_phases(inside, column, turn, HEAD, PHASE_ROWS)
    y = gl.zeros([ROWS, COLUMNS], gl.float32, sums)
    mbarrier.wait(weight_here.index(0), 0)
    for chunk in gl.static_range(CHUNKS):
        mbarrier.wait(x_here.index(chunk % STAGES), chunk // STAGES & 1)
        rows_here = x.index(chunk % STAGES)
        weight_part = weight.index(chunk).permute((1, 0))
        y = warpgroup_mma(rows_here, weight_part, y, use_acc=chunk > 0, is_async=True)
        if chunk > 0 and chunk - 1 + STAGES < CHUNKS:
            y = warpgroup_mma_wait(1, deps=(y,))
            _load_rows(chunk - 1 + STAGES, first_row, x_ref, x, x_here)
    y = warpgroup_mma_wait(0, deps=(y,))

    if squares_ptr is not None:
        y = y * factor[:, None]
    if GELU:
        y = gelu_by_tanh(y)
    if HEAD:
        y = turned(y, cos, sin, first_column < turned_columns)
    if residual_ptr is not None:
        y += residual.to(gl.float32)
    out = y.to(gl.bfloat16)
    place = row[:, None] * columns + column[None, :]
    gl.store(out_ptr + place, out, (row < rows)[:, None])
    if out_squares_ptr is not None:
        wide = out.to(gl.float32)
        place = row * (columns // COLUMNS) + first_column // COLUMNS
        gl.store(out_squares_ptr + place, gl.sum(wide * wide, 1), row < rows)


@gluon.jit  # type: ignore[untyped-decorator]
def _load_rows(chunk: gl.constexpr, first_row, x_ref, x, x_here):  # type: ignore[no-untyped-def]
    """Asks for a chunk of the rows."""
    stage: gl.constexpr = chunk % x_here.shape[0]
    mbarrier.expect(x_here.index(stage), x_ref.block_type.nbytes)
    at = [first_row, chunk * x_ref.block_shape[1]]
    tma.async_copy_global_to_shared(x_ref, at, x_here.index(stage), x.index(stage))
