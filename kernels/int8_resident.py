"""Product of many 8-bit rows and an 8-bit weight on Hopper, for rows short enough to stay.

The tensor cores multiply int8 so fast that other things bound a product: bringing tiles from the L2
cache, and what follows the sums. So a program keeps its rows in shared memory, in their whole
depth, and only the weight streams past them, which halves what is brought. Two groups of warps have
half of the rows each, and take turns: while one has the tensor cores, the other scales, activates
and writes what it has summed. One more warp keeps the weight coming, and asks for its first tiles
before the rows have even been written. Roles of warps are beyond Triton's language; this is in
Gluon, its lower level.

The alternation is that of CUTLASS's "ping-pong" kernels.

Shapes: M rows, K width of a row, N outputs.
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

from kernels.gluon_tile import blocks, gelu_by_tanh, nearest_int8_pairs, on_hopper
from kernels.int8_epilogue import Epilogue
from kernels.int8_weight import Int8Weight
from kernels.matmul_tile import aligned, stripes_for
from kernels.product_epilogue import load_phases, turned
from kernels.turn import turn_arguments

# Rows of a group of warps, outputs of a tile, and the depth of a chunk: 128 bytes, the widest rows
# that shared memory keeps free of bank conflicts.
_ROWS, _COLUMNS, _CHUNK = 64, 128, 128
_GROUPS = 2
# A tile's chunks must be there at once, as one group takes all before the other's turn; and the
# next one's should be on their way.
_STAGES = 6
_MOST_DEPTH = _STAGES * _CHUNK
# With fewer rows, or fewer programs, int8_matmul's tiles make the product sooner.
LEAST_ROWS = 1024
_ENOUGH_PROGRAMS = 72
# A multiprocessor's registers, for three groups: those that sum, and the one that loads.
_LAUNCHED_REGISTERS, _SUMMING_REGISTERS, _LOADING_REGISTERS = 168, 240, 24


def fits(rows: int, columns: int, depth: int, epilogue: Epilogue) -> bool:
    """Whether the kernel makes products of this kind, and sooner than others do.

    Args:
        rows: M of the product.
        columns: N of the product.
        depth: K of the product.
        epilogue: what follows the sums.
    """
    whole = columns % _COLUMNS == 0 and depth % _CHUNK == 0 and 0 < depth <= _MOST_DEPTH
    if rows < LEAST_ROWS or not whole or epilogue.residual is not None:
        return False
    stripes = stripes_for(rows, columns, _GROUPS * _ROWS, _COLUMNS)
    if stripes.number * stripes.shares < _ENOUGH_PROGRAMS:
        return False
    if epilogue.out_scale is None and epilogue.dtype != torch.bfloat16:
        return False
    if epilogue.turn is None:
        return True
    head = 2 * epilogue.turn.cos_TK.shape[1]
    return _COLUMNS % head == 0 and epilogue.turn.columns % _COLUMNS == 0


def serves(q_MK: Tensor, weight: Int8Weight, epilogue: Epilogue) -> bool:
    """Whether the kernel `fits`, on this device and these matrices of two dimensions."""
    rows, depth = q_MK.shape
    loads = on_hopper(q_MK) and aligned(q_MK) and aligned(weight.q_NK)
    return loads and fits(rows, len(weight.q_NK), depth, epilogue)


def int8_resident(
    q_MK: Tensor, scale_M: Tensor | float, weight: Int8Weight, epilogue: Epilogue, out_MN: Tensor
) -> None:
    """The product of int8_matmul, where `serves` says so; arguments as there.

    An int8 result after an activation is computed in float16, so that it may differ by a third of a
    step from the exact one where that is largest.

    Args:
        q_MK: (M, K) int8.
        scale_M: (M,) float32 contiguous, or a number.
        weight: (N, K).
        epilogue: what follows the sums.
        out_MN: (M, N) contiguous, to write to.
    """
    (rows, depth), columns = q_MK.shape, len(weight.q_NK)
    stripes = stripes_for(rows, columns, _GROUPS * _ROWS, _COLUMNS)
    per_row = isinstance(scale_M, Tensor)
    _resident_kernel[(stripes.number, stripes.shares)](
        blocks(q_MK, _ROWS, _CHUNK),
        blocks(weight.q_NK, _COLUMNS, _CHUNK),
        blocks(out_MN, _ROWS, _COLUMNS),
        scale_M if per_row else None,
        0.0 if per_row else scale_M,
        weight.scale_N,
        rows,
        columns,
        stripes.tiles,
        1.0 if epilogue.out_scale is None else 1.0 / epilogue.out_scale,
        CHUNKS=depth // _CHUNK,
        STAGES=_STAGES,
        GELU=epilogue.activation == "gelu",
        INT8=epilogue.out_scale is not None,
        SUMMING_REGISTERS=_SUMMING_REGISTERS,
        LOADING_REGISTERS=_LOADING_REGISTERS,
        num_warps=4,
        maxnreg=_LAUNCHED_REGISTERS,
        launch_pdl=True,
        **turn_arguments(epilogue.turn),
    )


@gluon.jit  # type: ignore[untyped-decorator]
def _resident_kernel(  # type: ignore[no-untyped-def]
    q_ref,
    weight_ref,
    out_ref,
    scale_ptr,
    given_scale,
    weight_scale_ptr,
    rows,
    columns,
    tiles_each,
    out_inverse,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    CHUNKS: gl.constexpr,
    STAGES: gl.constexpr,
    HEAD: gl.constexpr,
    PHASE_ROWS: gl.constexpr,
    GELU: gl.constexpr,
    INT8: gl.constexpr,
    SUMMING_REGISTERS: gl.constexpr,
    LOADING_REGISTERS: gl.constexpr,
):
    ROWS: gl.constexpr = q_ref.block_shape[0]
    COLUMNS: gl.constexpr = weight_ref.block_shape[0]
    CHUNK: gl.constexpr = q_ref.block_shape[1]
    gdc_launch_dependents()
    # The rows of both groups, chunk by chunk; the weight's chunks in flight; a tile a group.
    q = gl.allocate_shared_memory(gl.int8, [2 * CHUNKS, ROWS, CHUNK], q_ref.layout)
    weight = gl.allocate_shared_memory(gl.int8, [STAGES, COLUMNS, CHUNK], weight_ref.layout)
    out = gl.allocate_shared_memory(out_ref.dtype, [2, ROWS, COLUMNS], out_ref.layout)
    q_here = gl.allocate_shared_memory(gl.int64, [2 * CHUNKS, 1], mbarrier.MBarrierLayout())
    weight_here = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    weight_done = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for chunk in gl.static_range(2 * CHUNKS):
        mbarrier.init(q_here.index(chunk), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(weight_here.index(stage), count=1)
        mbarrier.init(weight_done.index(stage), count=2)
    for group in gl.static_range(2):
        mbarrier.init(turns.index(group), count=1)
    first_row = gl.program_id(0) * (2 * ROWS)
    first_tile = gl.program_id(1) * tiles_each
    tiles = gl.minimum(tiles_each, gl.cdiv(columns, COLUMNS) - first_tile)
    place = (first_row, first_tile, tiles, rows)
    shared = (q, weight, out, q_here, weight_here, weight_done, turns)
    refs = (q_ref, weight_ref, out_ref)
    given = (scale_ptr, given_scale, weight_scale_ptr, out_inverse)
    turn = (cos_ptr, sin_ptr, n_phases, turned_columns)
    gl.warp_specialize(
        [
            (
                _sum_tiles,
                (place, shared, refs, given, turn, CHUNKS, HEAD, PHASE_ROWS, GELU, INT8, 0),
            ),
            (
                _sum_tiles,
                (place, shared, refs, given, turn, CHUNKS, HEAD, PHASE_ROWS, GELU, INT8, 1),
            ),
            (_load, (place, shared, refs, CHUNKS)),
        ],
        [4, 1],
        [SUMMING_REGISTERS, LOADING_REGISTERS],
    )


@gluon.jit  # type: ignore[untyped-decorator]
def _load(place, shared, refs, CHUNKS: gl.constexpr):  # type: ignore[no-untyped-def]
    """Brings the weight's chunks as stages become free, and the rows once they are written."""
    first_row, _, tiles, _ = place
    q, _, _, q_here, _, weight_done, _ = shared
    q_ref, _, _ = refs
    STAGES: gl.constexpr = weight_done.shape[0]
    # No kernel writes weights: they may come before whatever the kernel before still does.
    for n in range(0, gl.minimum(tiles * CHUNKS, STAGES)):
        _load_weight(n, place, shared, refs, CHUNKS)
    gdc_wait()
    for n in gl.static_range(2 * CHUNKS):
        bar = q_here.index(n)
        mbarrier.expect(bar, q_ref.block_type.nbytes)
        row = first_row + n // CHUNKS * q_ref.block_shape[0]
        at = [row, n % CHUNKS * q_ref.block_shape[1]]
        tma.async_copy_global_to_shared(q_ref, at, bar, q.index(n))
    for n in range(STAGES, tiles * CHUNKS):
        mbarrier.wait(weight_done.index(n % STAGES), (n // STAGES & 1) ^ 1)
        _load_weight(n, place, shared, refs, CHUNKS)


@gluon.jit  # type: ignore[untyped-decorator]
def _load_weight(n, place, shared, refs, CHUNKS: gl.constexpr):  # type: ignore[no-untyped-def]
    """Asks for the n-th chunk of this program's tiles."""
    _, first_tile, _, _ = place
    _, weight, _, _, weight_here, _, _ = shared
    _, weight_ref, _ = refs
    stage = n % weight_here.shape[0]
    bar = weight_here.index(stage)
    mbarrier.expect(bar, weight_ref.block_type.nbytes)
    first_column = (first_tile + n // CHUNKS) * weight_ref.block_shape[0]
    at = [first_column, n % CHUNKS * weight_ref.block_shape[1]]
    tma.async_copy_global_to_shared(weight_ref, at, bar, weight.index(stage))


@gluon.jit  # type: ignore[untyped-decorator]
def _sum_tiles(  # type: ignore[no-untyped-def]
    place,
    shared,
    refs,
    given,
    turn,
    CHUNKS: gl.constexpr,
    HEAD: gl.constexpr,
    PHASE_ROWS: gl.constexpr,
    GELU: gl.constexpr,
    INT8: gl.constexpr,
    GROUP: gl.constexpr,
):
    """One group's tiles, from sums to memory."""
    first_row, first_tile, tiles, rows = place
    q, weight, out, q_here, weight_here, weight_done, turns = shared
    _, _, out_ref = refs
    scale_ptr, given_scale, weight_scale_ptr, out_inverse = given
    _, _, _, turned_columns = turn
    ROWS: gl.constexpr = out_ref.block_shape[0]
    COLUMNS: gl.constexpr = out_ref.block_shape[1]
    STAGES: gl.constexpr = weight_here.shape[0]
    sums: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 32])
    first_row += GROUP * ROWS
    # Past the last row comes the last row again; it is never stored.
    row = gl.minimum(first_row + gl.arange(0, ROWS, gl.SliceLayout(1, sums)), rows - 1)
    column = gl.arange(0, COLUMNS, gl.SliceLayout(0, sums))
    gdc_wait()
    if scale_ptr is None:
        scale = gl.full([ROWS], given_scale, gl.float32, gl.SliceLayout(1, sums))
    else:
        scale = gl.load(scale_ptr + row)
    if HEAD:
        cos, sin = load_phases(row, column, turn, HEAD, PHASE_ROWS)
    for tile in range(tiles):
        first_column = (first_tile + tile) * COLUMNS
        weight_scale = gl.load(weight_scale_ptr + first_column + column)
        total = gl.zeros([ROWS, COLUMNS], gl.int32, sums)
        # The first group begins; from then on the end of one's products is the other's turn.
        mbarrier.wait(turns.index(GROUP), (tile & 1) ^ (1 - GROUP))
        for chunk in gl.static_range(CHUNKS):
            n = tile * CHUNKS + chunk
            if tile == 0:
                mbarrier.wait(q_here.index(GROUP * CHUNKS + chunk), 0)
            mbarrier.wait(weight_here.index(n % STAGES), n // STAGES & 1)
            total = warpgroup_mma(
                q.index(GROUP * CHUNKS + chunk),
                weight.index(n % STAGES).permute((1, 0)),
                total,
                use_acc=chunk > 0,
                is_async=True,
            )
            if chunk > 0:
                total = warpgroup_mma_wait(1, deps=(total,))
                mbarrier.arrive(weight_done.index((n - 1) % STAGES), count=1)
        mbarrier.arrive(turns.index(1 - GROUP), count=1)
        total = warpgroup_mma_wait(0, deps=(total,))
        mbarrier.arrive(weight_done.index(((tile + 1) * CHUNKS - 1) % STAGES), count=1)
        y = total.to(gl.float32) * scale[:, None] * weight_scale[None, :]
        if HEAD:
            y = turned(y, cos, sin, first_column < turned_columns)
        # The tile before must have left.
        tma.store_wait(0)
        if INT8:
            _store_int8(out, y, out_inverse, GELU, GROUP)
        else:
            if GELU:
                y = gelu_by_tanh(y)
            out.index(GROUP).store(y.to(out_ref.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(out_ref, [first_row, first_column], out.index(GROUP))
    tma.store_wait(0)


@gluon.jit  # type: ignore[untyped-decorator]
def _store_int8(out, y, out_inverse, GELU: gl.constexpr, GROUP: gl.constexpr):  # type: ignore[no-untyped-def]
    """Writes a tile's int8 to shared memory, two at a time, as the layout has them."""
    ROWS: gl.constexpr = y.shape[0]
    PAIRS: gl.constexpr = y.shape[1] // 2
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, PAIRS], gl.int16)
    even, odd = y.reshape([ROWS, PAIRS, 2]).split()
    if GELU:
        pairs = _gelu_int8(even, odd, 0.5 * out_inverse)
    else:
        pairs = nearest_int8_pairs(even * out_inverse, odd * out_inverse)
    out._reinterpret(gl.int16, [2, ROWS, PAIRS], layout).index(GROUP).store(pairs)


@gluon.jit
def _gelu_int8(even, odd, half_inverse):  # type: ignore[no-untyped-def]
    """Pairs of int8 of 2 gelu(x) half_inverse, in float16, two elements an instruction."""
    return gl.inline_asm_elementwise(
        """
        {
            .reg .b32 x, u, half, least, most, linear, cubic, no_fraction;
            mov.b32 least, 0xcf80cf80;        // -30: its GELU is 0, and half of it finite
            mov.b32 most, 0x57f057f0;         // 127
            mov.b32 linear, 0x3a623a62;       // sqrt(2 / pi)
            mov.b32 cubic, 0x28912891;        // 0.044715 sqrt(2 / pi)
            mov.b32 no_fraction, 0x66006600;  // 1536
            cvt.rn.f16x2.f32 half, $3, $3;
            cvt.rn.f16x2.f32 x, $2, $1;
            max.f16x2 x, x, least;
            mul.rn.f16x2 u, x, x;
            fma.rn.f16x2 u, u, cubic, linear;
            mul.rn.f16x2 u, u, x;
            tanh.approx.f16x2 u, u;
            mul.rn.f16x2 x, x, half;
            fma.rn.f16x2 x, x, u, x;
            min.f16x2 x, x, most;
            add.rn.f16x2 x, x, no_fraction;
            prmt.b32 x, x, x, 0x0020;
            cvt.u16.u32 $0, x;
        }
        """,
        "=h,f,f,f",
        [even, odd, half_inverse],
        dtype=gl.int16,
        is_pure=True,
        pack=1,
    )
