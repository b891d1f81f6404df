"""Linear layer without bias, and the residual that it is added to.

Formula:

    y = residual + x W^T

cuBLAS first copies the residual to where the sum will be, which costs a launch; with few rows that
is a good part of the whole. The kernel adds it to the accumulator.

Shapes: M rows, K width of a row, N outputs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.dispatch import form_for
from kernels.norm_linear import (
    TILE_FLOAT32,
    Tile,
    load_columns,
    loadable,
    operand,
    pick_tile,
    product_type,
    programs,
    row_pointers,
    store_tile,
    tile_origin,
)

# From the largest: the fewer loads a product, the fewer programs.
_TILES = (
    Tile(128, 256, 64, warps=8, stages=4, tma=True),
    Tile(128, 128, 64, warps=8, stages=4, tma=True),
    Tile(64, 64, 128, warps=4, stages=4),
    Tile(32, 64, 128, warps=4, stages=4),
    Tile(16, 32, 128, warps=4, stages=5),
)


def tile_for(rows: int, columns: int, depth: int) -> Tile:
    """The tile for a product of bfloat16; arguments are M, N and K."""
    return pick_tile(_TILES, rows, columns, depth)


def linear_add_reference(x_MK: Tensor, weight_NK: Tensor, residual_MN: Tensor) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        x_MK: (..., K) rows.
        weight_NK: (N, K) the layer's weight.
        residual_MN: (..., N) what is added to.

    Returns:
        (..., N), of x's type.
    """
    x, residual = (t.reshape(-1, t.shape[-1]) for t in (x_MK, residual_MN))
    return torch.addmm(residual, x, weight_NK.t()).view(residual_MN.shape)


def linear_add(x_MK: Tensor, weight_NK: Tensor, residual_MN: Tensor) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    if form_for(x_MK, wins=_wins(x_MK)) == "triton":
        return linear_add_triton(x_MK, weight_NK, residual_MN)
    return linear_add_reference(x_MK, weight_NK, residual_MN)


def linear_add_triton(
    x_MK: Tensor,
    weight_NK: Tensor,
    residual_MN: Tensor,
    *,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        x_MK: (..., K) rows.
        weight_NK: (N, K), of x's type, contiguous in K as x is.
        residual_MN: (..., N).
        config: the tile, else from `tile_for`.
        out: (..., N) contiguous, to write to; may be the residual itself.

    Raises:
        ValueError: types, shapes or layouts differ from the above.
    """
    if x_MK.dtype != weight_NK.dtype:
        raise ValueError(f"rows are {x_MK.dtype}, the weight {weight_NK.dtype}")
    depth, columns = x_MK.shape[-1], weight_NK.shape[0]
    x = x_MK.reshape(-1, depth)
    if x.stride(-1) != 1 or weight_NK.stride(-1) != 1:
        raise ValueError("rows and weight must be contiguous in K")
    shape = (*x_MK.shape[:-1], columns)
    out = torch.empty(shape, device=x.device, dtype=x.dtype) if out is None else out
    if residual_MN.shape != shape or out.shape != shape or not out.is_contiguous():
        raise ValueError(f"residual and out must be {shape}, out contiguous")
    if out.numel():
        default = TILE_FLOAT32 if x.dtype == torch.float32 else tile_for(len(x), columns, depth)
        tile = loadable(config or default, x, weight_NK)
        _linear_add_kernel[(programs(tile, len(x), columns),)](
            operand(x, tile.m, tile),
            operand(weight_NK, tile.n, tile),
            residual_MN.contiguous(),
            out,
            len(x),
            columns,
            x.stride(0),
            weight_NK.stride(0),
            DIM=depth,
            BLOCK_M=tile.m,
            BLOCK_N=tile.n,
            BLOCK_K=tile.k,
            GROUP=tile.group,
            TMA=tile.tma,
            DOT=product_type(x),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


def _wins(x_MK: Tensor) -> bool:
    """Whether the kernel is faster than cuBLAS: docs/measured/kernel_speed.md."""
    if x_MK.dtype != torch.bfloat16 or x_MK.shape[-1] % 8:
        return False
    rows = x_MK.numel() // x_MK.shape[-1]
    # In between, cuBLAS splits the product's depth, and that is worth the extra launch.
    return rows <= 128 or rows >= 4096


@triton.jit  # type: ignore[untyped-decorator]
def _linear_add_kernel(  # type: ignore[no-untyped-def]
    x_ref,
    weight_ref,
    residual_ptr,
    out_ptr,
    rows,
    columns,
    x_stride,
    weight_stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    TMA: tl.constexpr,
    DOT: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    if not TMA:
        x_rows = row_pointers(x_ref, first_row, rows, x_stride, BLOCK_M)
        weight_rows = row_pointers(weight_ref, first_column, columns, weight_stride, BLOCK_N)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, DIM, BLOCK_K):
        if TMA:
            x = x_ref.load([first_row, k])
            weight = weight_ref.load([first_column, k])
        else:
            x = load_columns(x_rows, k, DIM, BLOCK_K)
            weight = load_columns(weight_rows, k, DIM, BLOCK_K)
        product = tl.dot(x.to(DOT), weight.to(DOT).T, product, input_precision="ieee")
    residual = row_pointers(residual_ptr, first_row, rows, columns, BLOCK_M)
    column = first_column + tl.arange(0, BLOCK_N)
    product += tl.load(residual + column[None, :], (column < columns)[None, :], 0.0).to(tl.float32)
    store_tile(out_ptr, product, first_row, first_column, rows, columns)
