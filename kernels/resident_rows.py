"""Product of many bfloat16 rows on Hopper, short enough to stay while the weight streams past.

At these sizes the tensor cores wait for operands: for those that come from the L2 cache, and for
those that they read from shared memory. So a program keeps its rows for all of its tiles, and only
the weight is brought. The rows stay in registers, where the tensor cores read them without a way
through shared memory, which so has room for more of the weight on its way. The warps of a program
have roles. Two groups have half of the rows each; they share the weight's chunks, and otherwise do
not wait for each other: the second begins some chunks behind the first, so that one multiplies
while the other normalises, activates and writes. One more warp keeps the weight coming, and asks
for its first chunks before the rows have even been written. Roles of warps are beyond Triton's
language; this is in Gluon, its lower level.

What follows the sums is norm_linear's: a norm, then an activation, a turn, or nothing.

Roles of warps and left operands in registers are those of CUTLASS's kernels for Hopper.

Shapes: M rows, K width of a row, N outputs, P parts of a row.
"""

from dataclasses import dataclass

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

from kernels.gluon_tile import blocks, gelu_of_half, on_hopper
from kernels.matmul_tile import ENOUGH_PROGRAMS, aligned, stripes_for
from kernels.product_epilogue import Normed, load_phases, sum_of_parts, turned
from kernels.turn import Turn, turn_arguments

# Rows of a group of warps, outputs of a tile, and the depth of a chunk: 128 bytes, the widest rows
# that shared memory keeps free of bank conflicts.
_ROWS, _COLUMNS, _CHUNK = 64, 128, 64
_GROUPS = 2
# Rows must find room in a group's registers beside its sums.
_MOST_DEPTH = 512
# With fewer rows, or fewer programs, other tiles make the product sooner.
LEAST_ROWS = 2048
# More chunks on their way are of no use. A program's shared memory, less a little for barriers.
_MOST_STAGES = 12
_SHARED_BYTES = 224 * 1024
# A multiprocessor's registers, for three groups: those that sum, and the one that loads.
_LAUNCHED_REGISTERS, _SUMMING_REGISTERS, _LOADING_REGISTERS = 168, 240, 24


@dataclass(frozen=True)
class Plan:
    """How the kernel goes about it.

    Attributes:
        behind: chunks that the second group begins behind the first, or up to a tile.
        piece: outputs that a group finishes and writes at once.
        buffers: pieces of a group on their way to memory, a divisor of a tile's.
    """

    behind: int
    piece: int
    buffers: int


# An activation takes so long that one group had best be done before the other begins. A turn's
# phases are loaded once a piece.
ACTIVATED = Plan(behind=7, piece=64, buffers=2)
OTHERWISE = Plan(behind=4, piece=128, buffers=1)


def fits(rows: int, columns: int, depth: int) -> bool:
    """Whether the kernel makes products of this kind, and sooner than others do.

    Args:
        rows: M of the product.
        columns: N of the product.
        depth: K of the product.
    """
    whole = columns % _COLUMNS == 0 and depth % _CHUNK == 0 and 0 < depth <= _MOST_DEPTH
    if rows < LEAST_ROWS or not whole:
        return False
    stripes = stripes_for(rows, columns, _GROUPS * _ROWS, _COLUMNS)
    return stripes.number * stripes.shares >= ENOUGH_PROGRAMS


def serves(x_MK: Tensor, weight_NK: Tensor, turn: Turn | None = None) -> bool:
    """Whether the kernel `fits`, on this device and these matrices of two dimensions.

    Args:
        x_MK: the rows.
        weight_NK: the weight.
        turn: how the leading columns turn, or None.
    """
    if not on_hopper(x_MK) or x_MK.dtype != torch.bfloat16:
        return False
    if turn is not None and (_COLUMNS % (2 * turn.cos_TK.shape[1]) or turn.columns % _COLUMNS):
        return False
    (rows, depth), columns = x_MK.shape, len(weight_NK)
    return aligned(x_MK) and aligned(weight_NK) and fits(rows, columns, depth)


def resident_rows(
    x_MK: Tensor,
    weight_NK: Tensor,
    follows: Normed,
    out_MN: Tensor,
    plan: Plan | None = None,
) -> None:
    """The product, where `serves` says so.

    Args:
        x_MK: (M, K) bfloat16, contiguous in K.
        weight_NK: (N, K) likewise. No kernel that is still running may be writing it.
        follows: what follows the sums.
        out_MN: (M, N) contiguous, to write to.
        plan: how to go about it; by default what suits what follows.
    """
    (rows, depth), columns = x_MK.shape, len(weight_NK)
    stripes = stripes_for(rows, columns, _GROUPS * _ROWS, _COLUMNS)
    chunks = depth // _CHUNK
    plan = plan or (ACTIVATED if follows.gelu else OTHERWISE)
    stages = _stages(plan)
    _resident_rows_kernel[(stripes.number, stripes.shares)](
        blocks(x_MK, _ROWS, _CHUNK),
        blocks(weight_NK, _COLUMNS, _CHUNK),
        blocks(out_MN, _ROWS, plan.piece),
        follows.squares_MP,
        rows,
        columns,
        stripes.tiles,
        follows.eps,
        CHUNKS=chunks,
        STAGES=stages,
        BEHIND=min(plan.behind, chunks - 1),
        BUFFERS=plan.buffers,
        PARTS=follows.squares_MP.shape[1],
        GELU=follows.gelu,
        SUMMING_REGISTERS=_SUMMING_REGISTERS,
        LOADING_REGISTERS=_LOADING_REGISTERS,
        num_warps=4,
        maxnreg=_LAUNCHED_REGISTERS,
        launch_pdl=True,
        **turn_arguments(follows.turn),
    )


def _stages(plan: Plan) -> int:
    """Chunks on their way: all of the rows at once, and some of the weight."""
    room = _SHARED_BYTES - 2 * _GROUPS * plan.buffers * _ROWS * plan.piece
    return min(_MOST_STAGES, room // (2 * _COLUMNS * _CHUNK))


@gluon.jit  # type: ignore[untyped-decorator]
def _resident_rows_kernel(  # type: ignore[no-untyped-def]
    x_ref,
    weight_ref,
    out_ref,
    squares_ptr,
    rows,
    columns,
    tiles_each,
    eps,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    CHUNKS: gl.constexpr,
    STAGES: gl.constexpr,
    BEHIND: gl.constexpr,
    BUFFERS: gl.constexpr,
    PARTS: gl.constexpr,
    HEAD: gl.constexpr,
    PHASE_ROWS: gl.constexpr,
    GELU: gl.constexpr,
    SUMMING_REGISTERS: gl.constexpr,
    LOADING_REGISTERS: gl.constexpr,
):
    ROWS: gl.constexpr = x_ref.block_shape[0]
    CHUNK: gl.constexpr = x_ref.block_shape[1]
    COLUMNS: gl.constexpr = weight_ref.block_shape[0]
    PIECE: gl.constexpr = out_ref.block_shape[1]
    gdc_launch_dependents()
    # A chunk of both groups' rows is as large as one of the weight: on their way to registers, the
    # rows take the ring's first round.
    gl.static_assert(2 * ROWS == COLUMNS)
    ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, COLUMNS, CHUNK], weight_ref.layout)
    out = gl.allocate_shared_memory(gl.bfloat16, [2 * BUFFERS, ROWS, PIECE], out_ref.layout)
    here = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    done = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ahead = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(here.index(stage), count=1)
        mbarrier.init(done.index(stage), count=2)
    mbarrier.init(ahead.index(0), count=1)
    x = ring._reinterpret(gl.bfloat16, [2 * STAGES, ROWS, CHUNK], x_ref.layout)
    first_row = gl.program_id(0) * 2 * ROWS
    first_tile = gl.program_id(1) * tiles_each
    tiles = gl.minimum(tiles_each, columns // COLUMNS - first_tile)
    place = (first_row, first_tile, tiles, rows)
    shared = (x, ring, here, done, out, ahead)
    refs = (x_ref, weight_ref, out_ref)
    normed = (squares_ptr, eps)
    turn = (cos_ptr, sin_ptr, n_phases, turned_columns)
    gl.warp_specialize(
        [
            (
                _make_tiles,
                (
                    place,
                    shared,
                    refs,
                    normed,
                    turn,
                    CHUNKS,
                    BEHIND,
                    PARTS,
                    HEAD,
                    PHASE_ROWS,
                    GELU,
                    0,
                ),
            ),
            (
                _make_tiles,
                (
                    place,
                    shared,
                    refs,
                    normed,
                    turn,
                    CHUNKS,
                    BEHIND,
                    PARTS,
                    HEAD,
                    PHASE_ROWS,
                    GELU,
                    1,
                ),
            ),
            (_load, (place, shared, refs, CHUNKS)),
        ],
        [4, 1],
        [SUMMING_REGISTERS, LOADING_REGISTERS],
    )


@gluon.jit  # type: ignore[untyped-decorator]
def _load(place, shared, refs, CHUNKS: gl.constexpr):  # type: ignore[no-untyped-def]
    """Brings the rows, and the weight's chunks as stages become free."""
    first_row, _, tiles, _ = place
    x, _, here, done, _, _ = shared
    x_ref, _, _ = refs
    STAGES: gl.constexpr = here.shape[0]
    # The first stages are the rows' before they are the weight's.
    gl.static_assert(STAGES > CHUNKS)
    chunks = CHUNKS + tiles * CHUNKS
    # No kernel writes weights: they may come before whatever the kernel before still does.
    for n in range(CHUNKS, gl.minimum(chunks, STAGES)):
        _load_weight(n, place, shared, refs, CHUNKS)
    gdc_wait()
    for chunk in gl.static_range(CHUNKS):
        bar = here.index(chunk)
        mbarrier.expect(bar, 2 * x_ref.block_type.nbytes)
        for group in gl.static_range(2):
            at = [first_row + group * x_ref.block_shape[0], chunk * x_ref.block_shape[1]]
            tma.async_copy_global_to_shared(x_ref, at, bar, x.index(2 * chunk + group))
    for n in range(STAGES, chunks):
        mbarrier.wait(done.index(n % STAGES), (n // STAGES & 1) ^ 1)
        _load_weight(n, place, shared, refs, CHUNKS)


@gluon.jit  # type: ignore[untyped-decorator]
def _load_weight(n, place, shared, refs, CHUNKS: gl.constexpr):  # type: ignore[no-untyped-def]
    """Asks for the ring's n-th chunk, of which the first CHUNKS are the rows'."""
    _, first_tile, _, _ = place
    _, ring, here, _, _, _ = shared
    _, weight_ref, _ = refs
    stage = n % here.shape[0]
    bar = here.index(stage)
    mbarrier.expect(bar, weight_ref.block_type.nbytes)
    n -= CHUNKS
    first_column = (first_tile + n // CHUNKS) * weight_ref.block_shape[0]
    at = [first_column, n % CHUNKS * weight_ref.block_shape[1]]
    tma.async_copy_global_to_shared(weight_ref, at, bar, ring.index(stage))


@gluon.jit  # type: ignore[untyped-decorator]
def _make_tiles(  # type: ignore[no-untyped-def]
    place,
    shared,
    refs,
    normed,
    turn,
    CHUNKS: gl.constexpr,
    BEHIND: gl.constexpr,
    PARTS: gl.constexpr,
    HEAD: gl.constexpr,
    PHASE_ROWS: gl.constexpr,
    GELU: gl.constexpr,
    GROUP: gl.constexpr,
):
    """One group's half of every tile, from sums to memory."""
    first_row, first_tile, tiles, rows = place
    x, ring, here, done, out, ahead = shared
    x_ref, weight_ref, out_ref = refs
    squares_ptr, eps = normed
    _, _, _, turned_columns = turn
    ROWS: gl.constexpr = x_ref.block_shape[0]
    CHUNK: gl.constexpr = x_ref.block_shape[1]
    COLUMNS: gl.constexpr = weight_ref.block_shape[0]
    PIECE: gl.constexpr = out_ref.block_shape[1]
    PIECES: gl.constexpr = COLUMNS // PIECE
    BUFFERS: gl.constexpr = out.shape[0] // 2
    STAGES: gl.constexpr = here.shape[0]
    # So that a buffer's last piece is always BUFFERS pieces back.
    gl.static_assert(PIECES % BUFFERS == 0)
    sums: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    piece: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, PIECE, 16])
    left: gl.constexpr = gl.DotOperandLayout(0, sums, k_width=2)
    first_row += GROUP * ROWS
    # Past the last row comes the last row again; it is never stored.
    row = gl.minimum(first_row + gl.arange(0, ROWS, gl.SliceLayout(1, piece)), rows - 1)
    gdc_wait()
    squares = sum_of_parts(squares_ptr, row, PARTS)
    factor = gl.rsqrt(squares / (CHUNKS * CHUNK) + eps)
    if GELU:
        factor *= 0.5
    operands = _operands(x, here, done, left, 0, CHUNKS, GROUP)
    if GROUP == 1 and BEHIND > 0:
        mbarrier.wait(ahead.index(0), 0)
    for tile in range(tiles):
        y = gl.zeros([ROWS, COLUMNS], gl.float32, sums)
        first = CHUNKS + tile * CHUNKS
        for chunk in gl.static_range(CHUNKS):
            n = first + chunk
            mbarrier.wait(here.index(n % STAGES), n // STAGES & 1)
            y = warpgroup_mma(
                operands[chunk],
                ring.index(n % STAGES).permute((1, 0)),
                y,
                use_acc=chunk > 0,
                is_async=True,
            )
            if chunk > 0:
                y = warpgroup_mma_wait(1, deps=(y,))
                mbarrier.arrive(done.index((n - 1) % STAGES), count=1)
            if GROUP == 0 and BEHIND > 0 and chunk == BEHIND:
                # Only once is there anyone who waits.
                mbarrier.arrive(ahead.index(0), count=1, pred=tile == 0)
        y = warpgroup_mma_wait(0, deps=(y,))
        mbarrier.arrive(done.index((first + CHUNKS - 1) % STAGES), count=1)

        first_column = (first_tile + tile) * COLUMNS
        pieces = _pieces(y, PIECES)
        for i in gl.static_range(PIECES):
            z = gl.convert_layout(pieces[i], piece) * factor[:, None]
            if GELU:
                z = gelu_of_half(z)
            if HEAD:
                column = i * PIECE + gl.arange(0, PIECE, gl.SliceLayout(0, piece))
                z = _turned(z, row, column, first_column < turned_columns, turn, HEAD, PHASE_ROWS)
            # What this buffer held must have left.
            tma.store_wait(BUFFERS - 1)
            buffer = out.index(GROUP * BUFFERS + i % BUFFERS)
            buffer.store(z.to(gl.bfloat16))
            fence_async_shared()
            tma.async_copy_shared_to_global(out_ref, [first_row, first_column + i * PIECE], buffer)
    tma.store_wait(0)


@gluon.jit  # type: ignore[untyped-decorator]
def _operands(  # type: ignore[no-untyped-def]
    x,
    here,
    done,
    left: gl.constexpr,
    chunk: gl.constexpr,
    CHUNKS: gl.constexpr,
    GROUP: gl.constexpr,
):
    """A group's rows from this chunk on, as operands of products, once they are here."""
    mbarrier.wait(here.index(chunk), 0)
    first = (x.index(2 * chunk + GROUP).load(left),)
    mbarrier.arrive(done.index(chunk), count=1)
    if chunk + 1 == CHUNKS:
        return first
    else:
        others = _operands(x, here, done, left, chunk + 1, CHUNKS, GROUP)
        return first + others


@gluon.jit  # type: ignore[untyped-decorator]
def _turned(  # type: ignore[no-untyped-def]
    z, row, column, turns, turn, HEAD: gl.constexpr, PHASE_ROWS: gl.constexpr
):
    """A piece of a tile, turned if the tile turns.

    Phases are loaded for every piece again: there are no registers to keep them in.
    """
    if turns:
        cos, sin = load_phases(row, column, turn, HEAD, PHASE_ROWS)
        z = turned(z, cos, sin, True)
    return z


@gluon.jit  # type: ignore[untyped-decorator]
def _pieces(y, PIECES: gl.constexpr):  # type: ignore[no-untyped-def]
    """A tile's columns in so many pieces, which stay in their registers."""
    if PIECES == 1:
        return (y,)
    else:
        ROWS: gl.constexpr = y.shape[0]
        left, right = y.reshape([ROWS, 2, y.shape[1] // 2]).permute((0, 2, 1)).split()
        return _pieces(left, PIECES // 2) + _pieces(right, PIECES // 2)
