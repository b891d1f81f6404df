"""8-bit linear layer without bias, and the residual that it is added to.

Formula:

    y = residual + s(W) s(x)  q(x) q(W)^T

with q and s of a row as in quantize_rows, of an output as in int8_weight. A row's scale is its own,
or one that was calibrated for all rows; then whoever wrote x may have quantised it already.

Shapes: M rows, K width of a row, N outputs, R rows of the residual.
"""

import torch
from torch import Tensor

from kernels.int8_epilogue import Epilogue
from kernels.int8_matmul import int8_matmul_reference
from kernels.int8_weight import Int8Weight
from kernels.linear_add import Rows
from kernels.quantize_rows import quantize_rows_reference, quantize_with_reference


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
    """
    q, scale = _quantized_reference(x_MK, in_scale)
    epilogue = Epilogue(residual=residual_RN)
    return Rows(int8_matmul_reference(q, scale, weight, residual_RN.dtype, epilogue))


def int8_linear_add(
    x_MK: Tensor, weight: Int8Weight, residual_RN: Tensor, *, in_scale: float | None = None
) -> Rows:
    """The form for the case at hand; arguments as the reference's."""
    return int8_linear_add_reference(x_MK, weight, residual_RN, in_scale=in_scale)


def _quantized_reference(x_MK: Tensor, in_scale: float | None) -> tuple[Tensor, Tensor | float]:
    if in_scale is None:
        return quantize_rows_reference(x_MK)
    q = x_MK if x_MK.dtype == torch.int8 else quantize_with_reference(x_MK, in_scale)
    return q, in_scale
