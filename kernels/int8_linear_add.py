"""8-bit linear layer without bias, and the residual that it is added to.

Formula:

    y = residual + s(W) s(x)  q(x) q(W)^T

with q and s of a row as in quantize_rows, of an output as in int8_weight. A row's scale is its own,
or one that was calibrated for all rows; then whoever wrote x may have quantised it already.

Few rows take one launch. Many are quantised by a first one, if they are not yet.

Shapes: M rows, K width of a row, N outputs, R rows of the residual.
"""

import torch
from torch import Tensor

from kernels.dispatch import form_for
from kernels.int8_epilogue import Epilogue
from kernels.int8_matmul import int8_matmul_reference, int8_matmul_triton
from kernels.int8_weight import Int8Weight
from kernels.int8_whole_depth import int8_whole_depth_triton, tile_for
from kernels.linear_add import Rows
from kernels.matmul_tile import Tile
from kernels.quantize_rows import (
    quantize_rows_reference,
    quantize_rows_triton,
    quantize_with_reference,
    quantize_with_triton,
)


def int8_linear_add_reference(
    x_MK: Tensor, weight: Int8Weight, residual_RN: Tensor, *, in_scale: float | None = None
) -> Rows:
    """Plain PyTorch: what the kernels must equal.

    Args:
        x_MK: (..., K) rows, of a floating type, or int8 with the scale `in_scale`.
        weight: (N, K) the layer's weight.
        residual_RN: (..., N) what is added to; of x's leading dimensions it may lack the first
            ones, and is then repeated over them.
        in_scale: the scale of all rows; None for one a row.

    Returns:
        (..., N), of the residual's type, and no squares.

    Raises:
        ValueError: the rows are int8, and there is no scale.
    """
    _check_scale(x_MK, in_scale)
    epilogue = Epilogue(residual_RN.dtype, residual=residual_RN)
    scale: Tensor | float
    if in_scale is None:
        q, scale = quantize_rows_reference(x_MK)
    else:
        q, scale = x_MK, in_scale
        if x_MK.dtype != torch.int8:
            q = quantize_with_reference(x_MK, in_scale)
    return Rows(int8_matmul_reference(q, scale, weight, epilogue))


def int8_linear_add(
    x_MK: Tensor, weight: Int8Weight, residual_RN: Tensor, *, in_scale: float | None = None
) -> Rows:
    """The form for the case at hand; arguments as the reference's."""
    form = int8_linear_add_triton if form_for(x_MK) == "triton" else int8_linear_add_reference
    return form(x_MK, weight, residual_RN, in_scale=in_scale)


def int8_linear_add_triton(
    x_MK: Tensor,
    weight: Int8Weight,
    residual_RN: Tensor,
    *,
    in_scale: float | None = None,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Rows:
    """The Triton kernels; arguments as the reference's, without gradients.

    Args:
        x_MK: (..., K) rows, contiguous in K.
        weight: (N, K). No kernel that is still running may be writing it.
        residual_RN: (..., N).
        in_scale: the scale of all rows; None for one a row.
        config: the tile, without a `k` for one launch; else the one for the shape.
        out: (..., N) contiguous, to write to; may be the residual itself.

    Raises:
        ValueError: types, shapes or layouts differ from the above.
    """
    _check_scale(x_MK, in_scale)
    rows, depth = x_MK.shape[:-1].numel(), x_MK.shape[-1]
    epilogue = Epilogue(residual_RN.dtype, residual=residual_RN)
    tile = config or tile_for(rows, len(weight.q_NK), depth)
    if tile is not None and not tile.k:
        y = int8_whole_depth_triton(x_MK, weight, epilogue, tile, in_scale=in_scale, out=out)
        return Rows(y)
    scale: Tensor | float
    if in_scale is None:
        q, scale = quantize_rows_triton(x_MK)
    else:
        q, scale = x_MK, in_scale
        if x_MK.dtype != torch.int8:
            q = quantize_with_triton(x_MK, in_scale)
    return Rows(int8_matmul_triton(q, scale, weight, epilogue, config=tile, out=out))


def _check_scale(x_MK: Tensor, in_scale: float | None) -> None:
    if in_scale is None and x_MK.dtype == torch.int8:
        raise ValueError("rows of int8 want their scale, in_scale")
    if in_scale is not None and not in_scale > 0:
        raise ValueError(f"the rows' scale must be positive, not {in_scale}")
