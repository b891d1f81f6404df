"""Quantisation, 8-bit product and what follows it in one launch, for few rows.

With few rows a launch costs more than a product. So every program quantises the rows that it needs
itself: it takes them whole, finds their largest values and the norm in registers, and multiplies
the whole depth in one step. Its part of the weight is in flight before the rows are even written.
Every warp multiplies a part of the depth of its own, as sums of one accumulator would wait for each
other. The tensor cores want 16 rows of their left operand and 8 of the other, so that fewer rows
than 16 are the right one.

Shapes: M rows, K width of a row, N outputs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.int8_epilogue import Epilogue, finish_tile, load_operands, load_scales
from kernels.int8_weight import Int8Weight, check_weight
from kernels.matmul_tile import Tile, programs, store_tile, tile_origin
from kernels.norm_linear import load_parts
from kernels.quantize_rows import clipped_int8, load_rows, quantize_tile

# From so many rows on, a tile is multiplied by Hopper's asynchronous instructions.
_ASYNCHRONOUS_ROWS = 64
# The tensor cores' least rows of a left operand, and least depth of a product of int8.
_LEAST_ROWS = 16
_LEAST_DEPTH = 32
# What a warp loads of a row at once, 16 bytes a thread.
_WARP_COLUMNS = 256
# As many rows take one launch, by their depth: else a program's do not fit its registers, or too
# many programs quantise a row.
_ROWS, _DEPTH = 512, 512
_DEEP_ROWS, _MOST_DEPTH = 64, 2048
_WIDE_OUTPUTS = 2**16


def tile_for(rows: int, columns: int, depth: int) -> Tile | None:
    """The tile for so few rows, or None where these are too many; arguments are M, N and K."""
    if rows > (_ROWS if depth <= _DEPTH else _DEEP_ROWS) or depth > _MOST_DEPTH:
        return None
    if depth > _MOST_DEPTH // 2:
        return Tile(8, 32 if rows <= 16 else 64, 0, warps=4, stages=1)
    if rows * columns >= _WIDE_OUTPUTS:
        return Tile(16, 128, 0, warps=8, stages=1)
    return Tile(8 if rows <= 8 else 16, 64, 0, warps=4, stages=1)


def int8_whole_depth_triton(
    x_MK: Tensor,
    weight: Int8Weight,
    epilogue: Epilogue,
    config: Tile,
    *,
    eps: float | None = None,
    in_scale: float | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernel, of rows as they are before `int8_matmul` takes them.

    Args:
        x_MK: (..., K) rows, of a floating type, or int8 with the scale `in_scale`; contiguous in K.
        weight: (N, K). No kernel that is still running may be writing it.
        epilogue: what follows the sums.
        config: the tile, of which `k` and `stages` are not used.
        eps: added to the mean square of the rows' RMS norm; None for no norm.
        in_scale: the scale of all rows; None for one a row.
        out: (..., N) contiguous, to write to; may be the residual itself.

    Returns:
        (..., N).

    Raises:
        ValueError: types, shapes or layouts differ from the above.
    """
    depth, columns = x_MK.shape[-1], len(weight.q_NK)
    check_weight(weight, depth)
    if x_MK.dtype == torch.int8 and in_scale is None:
        raise ValueError("rows of int8 want their scale")
    if eps is not None and in_scale is not None:
        raise ValueError("normed rows have a scale each")
    if depth and x_MK.stride(-1) != 1:
        raise ValueError("rows must be contiguous in K")
    out = epilogue.output(x_MK, columns, out)
    if not out.numel():
        return out
    x = x_MK.reshape(-1, depth)
    rows = len(x)
    block = max(triton.next_power_of_2(depth), _LEAST_DEPTH)
    parts = _parts(config, block)
    out_MN = out.view(-1, columns)
    _whole_depth_kernel[(programs(config, rows, columns),)](
        x,
        weight.q_NK,
        weight.scale_N,
        out_MN,
        rows,
        columns,
        x.stride(0),
        0.0 if eps is None else eps,
        0.0 if in_scale is None else in_scale,
        0.0 if in_scale is None else 1.0 / in_scale,
        DIM=depth,
        BLOCK_M=config.m,
        BLOCK_N=config.n,
        BLOCK_K=block,
        PARTS=parts,
        ROW_PARTS=max(block // _WARP_COLUMNS, parts, 1),
        SWAP=config.m < _LEAST_ROWS or config.m < _ASYNCHRONOUS_ROWS <= config.n,
        GROUP=config.group,
        NORM=eps is not None,
        GIVEN=in_scale is not None,
        num_warps=config.warps,
        # Fused, the product and the rounding after it would round once where two are meant.
        enable_fp_fusion=False,
        **epilogue.options(out_MN, config),
        **launch_options(x),
    )
    return out


def _parts(tile: Tile, depth: int) -> int:
    """Into how many parts the depth is cut."""
    if max(tile.m, tile.n) >= _ASYNCHRONOUS_ROWS:
        return 1
    return min(tile.warps, depth // _LEAST_DEPTH)


@triton.jit  # type: ignore[untyped-decorator]
def _whole_depth_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    weight_ptr,
    weight_scale_ptr,
    out_ptr,
    rows,
    columns,
    x_stride,
    eps,
    in_scale,
    in_inverse,
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
    PARTS: tl.constexpr,
    ROW_PARTS: tl.constexpr,
    SWAP: tl.constexpr,
    GROUP: tl.constexpr,
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
    PDL: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    if PDL:
        # Before this weight has come, so that the next kernel may fetch its own.
        gdc_launch_dependents()
    # No kernel writes weights: they may come before whatever the kernel before still does.
    weight = load_parts(
        weight_ptr, first_column, columns, DIM, DIM, BLOCK_N, BLOCK_K // PARTS, PARTS
    )
    weight_scale = load_scales(weight_scale_ptr, 0.0, first_column, columns, BLOCK_N)
    wait_for_inputs(PDL)
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
    x = load_rows(x_ptr, first_row, rows, x_stride, DIM, BLOCK_M, BLOCK_K, ROW_PARTS)
    if GIVEN:
        scale = tl.full((BLOCK_M,), in_scale, tl.float32)
        q = x if x.dtype == tl.int8 else clipped_int8(x.to(tl.float32) * in_inverse)
    else:
        q, scale = quantize_tile(x.to(tl.float32), eps, DIM, NORM)
    if PARTS == 1:
        q = tl.reshape(q, (BLOCK_M, BLOCK_K))
    else:
        q = tl.permute(tl.reshape(q, (BLOCK_M, PARTS, BLOCK_K // PARTS)), (1, 0, 2))
    total = _product(q, weight, PARTS, SWAP)
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
    store_tile(out_ptr, y, first_row, first_column, rows, columns)


@triton.jit  # type: ignore[untyped-decorator]
def _product(q, weight, PARTS: tl.constexpr, SWAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """(M, N) int32 of rows (M, K) and a weight (N, K), or both (PARTS, ..., K / PARTS)."""
    if PARTS == 1:
        if SWAP:
            total = tl.dot(weight, q.T, out_dtype=tl.int32).T
        else:
            total = tl.dot(q, weight.T, out_dtype=tl.int32)
    else:
        if SWAP:
            parts = tl.dot(weight, tl.permute(q, (0, 2, 1)), out_dtype=tl.int32)
            total = tl.sum(parts, 0).T
        else:
            parts = tl.dot(q, tl.permute(weight, (0, 2, 1)), out_dtype=tl.int32)
            total = tl.sum(parts, 0)
    return total
