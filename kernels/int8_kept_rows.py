"""Quantisation, 8-bit product and what follows it in one launch, for many rows.

A program takes some rows whole, quantises them, and keeps them in shared memory while it goes over
the weight's outputs, whose next tile is on its way meanwhile. So rows are read, and quantised, once
by each of the few programs that share them, and need no launch of their own; and the weight is read
once for as many rows as shared memory holds, where a product in square tiles reads it twice as
often, which is what bounds that.

Shapes: M rows, K width of a row, N outputs.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.int8_epilogue import Epilogue, finish_tile, load_operands, load_scales
from kernels.int8_weight import Int8Weight
from kernels.matmul_tile import Tile, aligned, store_tile
from kernels.norm_linear import load_parts
from kernels.quantize_rows import clipped_int8, load_rows, quantize_tile

# The tensor cores' least depth of a product of int8.
_LEAST_DEPTH = 32
# What a warp loads of a row at once, 16 bytes a thread.
_WARP_COLUMNS = 256


def product_of_kept_rows(
    x_MK: Tensor,
    weight: Int8Weight,
    epilogue: Epilogue,
    tile: Tile,
    eps: float | None,
    in_scale: float | None,
    out_MN: Tensor,
) -> None:
    """Writes the product; int8_whole_depth has the arguments, and has checked them.

    Args:
        x_MK: (M, K) rows.
        weight: (N, K).
        epilogue: what follows the sums.
        tile: its `m` rows are kept, by about `resident` programs in all, each for a share of the
            outputs, `n` at once; `stages` tiles of the weight are in flight or in use.
        eps: of the rows' norm, or None.
        in_scale: the scale of all rows, or None.
        out_MN: (M, N) contiguous.
    """
    (rows, depth), columns = x_MK.shape, len(weight.q_NK)
    blocks = -(-rows // tile.m)
    tiles = -(-columns // tile.n)
    tiles_each = -(-tiles // max(tile.resident // blocks, 1))
    shares = -(-tiles // tiles_each)
    block = max(triton.next_power_of_2(depth), _LEAST_DEPTH)
    tma = tile.tma and aligned(weight.q_NK) and block == depth
    tma_store = tile.tma_store and aligned(out_MN)
    _kept_rows_kernel[(blocks * shares,)](
        x_MK,
        TensorDescriptor.from_tensor(weight.q_NK, [tile.n, depth]) if tma else weight.q_NK,
        weight.scale_N,
        TensorDescriptor.from_tensor(out_MN, [tile.m, tile.n]) if tma_store else out_MN,
        rows,
        columns,
        x_MK.stride(0),
        0.0 if eps is None else eps,
        0.0 if in_scale is None else in_scale,
        0.0 if in_scale is None else 1.0 / in_scale,
        shares,
        tiles_each * tile.n,
        DIM=depth,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=block,
        ROW_PARTS=max(block // _WARP_COLUMNS, 1),
        NORM=eps is not None,
        GIVEN=in_scale is not None,
        TMA=tma,
        TMA_STORE=tma_store,
        num_warps=tile.warps,
        num_stages=tile.stages,
        # Fused, the product and the rounding after it would round once where two are meant.
        enable_fp_fusion=False,
        **epilogue.options(out_MN, tile),
        **launch_options(x_MK),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _kept_rows_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    weight_ref,
    weight_scale_ptr,
    out_ref,
    rows,
    columns,
    x_stride,
    eps,
    in_scale,
    in_inverse,
    shares,
    columns_each,
    residual_ptr,
    period,
    out_inverse,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ROW_PARTS: tl.constexpr,
    NORM: tl.constexpr,
    GIVEN: tl.constexpr,
    ADD: tl.constexpr,
    REPEATED: tl.constexpr,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    GELU: tl.constexpr,
    FAST: tl.constexpr,
    INT8: tl.constexpr,
    TMA: tl.constexpr,
    TMA_STORE: tl.constexpr,
    PDL: tl.constexpr,
):
    # The programs of a share run side by side, and find its part of the weight in the L2 cache.
    blocks = tl.num_programs(0) // shares
    first_row = tl.program_id(0) % blocks * BLOCK_M
    begin = tl.program_id(0) // blocks * columns_each
    end = tl.minimum(begin + columns_each, columns)
    wait_for_inputs(PDL)
    x = load_rows(x_ptr, first_row, rows, x_stride, DIM, BLOCK_M, BLOCK_K, ROW_PARTS)
    if GIVEN:
        scale = tl.full((BLOCK_M,), in_scale, tl.float32)
        q = x if x.dtype == tl.int8 else clipped_int8(x.to(tl.float32) * in_inverse)
    else:
        q, scale = quantize_tile(x.to(tl.float32), eps, DIM, NORM)
    q = tl.reshape(q, (BLOCK_M, BLOCK_K))
    for first_column in tl.range(begin, end, BLOCK_N):
        if TMA:
            weight = weight_ref.load([first_column, 0])
        else:
            weight = load_parts(weight_ref, first_column, columns, DIM, DIM, BLOCK_N, BLOCK_K, 1)
        # They arrive behind the product.
        weight_scale = load_scales(weight_scale_ptr, 0.0, first_column, columns, BLOCK_N)
        residual, cos, sin = load_operands(
            first_row,
            first_column,
            rows,
            columns,
            residual_ptr,
            period,
            cos_ptr,
            sin_ptr,
            n_phases,
            turned_columns,
            ADD,
            REPEATED,
            HEAD,
            PHASE_ROWS,
            SHARE,
            PERIOD,
            BLOCK_M,
            BLOCK_N,
        )
        total = tl.dot(q, weight.T, out_dtype=tl.int32)
        y = finish_tile(
            total,
            scale,
            weight_scale,
            residual,
            cos,
            sin,
            out_inverse,
            ADD,
            HEAD,
            GELU,
            FAST,
            INT8,
        )
        if TMA_STORE:
            out_ref.store([first_row, first_column], y.to(out_ref.dtype))
        else:
            store_tile(out_ref, y, first_row, first_column, rows, columns)
