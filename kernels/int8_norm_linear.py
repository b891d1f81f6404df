"""RMS norm, 8-bit linear layer, and activation or rotary turn in one operator.

Formula, for a row x and a weight W that the norm's gain has been folded into:

    y = activation(s(W) s(x) r  q(x) q(W)^T),   r = 1 / sqrt(mean(x^2) + eps)

with q and s of a row as in quantize_rows, of an output as in int8_weight, and instead of an
activation, if wanted, the pairs of the leading columns turned as in kernels.rotary. The norm is one
factor a row, so it joins the row's scale.

Few rows take one launch. Many are quantised by a first one: else each of the programs that need a
row would have to.

Shapes: M rows, D width of a row, N outputs.
"""

from torch import Tensor

from kernels.dispatch import form_for
from kernels.int8_epilogue import Epilogue
from kernels.int8_matmul import int8_matmul_reference, int8_matmul_triton
from kernels.int8_weight import Int8Weight
from kernels.int8_whole_depth import int8_whole_depth_triton, tile_for
from kernels.linear_add import Rows
from kernels.matmul_tile import Tile
from kernels.norm_linear import Activation
from kernels.quantize_rows import rms_norm_quantize_rows_reference, rms_norm_quantize_rows_triton
from kernels.turn import Turn


def int8_norm_linear_reference(
    x: Rows,
    weight: Int8Weight,
    eps: float,
    activation: Activation | None = None,
    *,
    turn: Turn | None = None,
    out_scale: float | None = None,
) -> Tensor:
    """Plain PyTorch: what the kernels must equal.

    Args:
        x: (..., D) rows; their squares are not needed.
        weight: (N, D) the layer's weight, the norm's gain folded in.
        eps: added to the mean square.
        activation: None, or "gelu" in its tanh approximation; None with a turn.
        turn: how the leading columns turn, or None.
        out_scale: the scale of an int8 result, or None.

    Returns:
        (..., N) of the rows' type, or int8 with the scale `out_scale`.
    """
    q, scale = rms_norm_quantize_rows_reference(x.x, eps)
    epilogue = Epilogue(x.x.dtype, activation, turn, out_scale=out_scale)
    return int8_matmul_reference(q, scale, weight, epilogue)


def int8_norm_linear(
    x: Rows,
    weight: Int8Weight,
    eps: float,
    activation: Activation | None = None,
    *,
    turn: Turn | None = None,
    out_scale: float | None = None,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = int8_norm_linear_reference
    if form_for(x.x) == "triton":
        form = int8_norm_linear_triton
    return form(x, weight, eps, activation, turn=turn, out_scale=out_scale)


def int8_norm_linear_triton(
    x: Rows,
    weight: Int8Weight,
    eps: float,
    activation: Activation | None = None,
    *,
    turn: Turn | None = None,
    out_scale: float | None = None,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernels; arguments as the reference's, without gradients.

    Args:
        x: (..., D) rows, contiguous in D.
        weight: (N, D). No kernel that is still running may be writing it.
        eps: added to the mean square.
        activation: None or "gelu"; None with a turn.
        turn: how the leading columns turn, or None.
        out_scale: the scale of an int8 result, or None.
        config: the tile, without a `k` for one launch; else the one for the shape.
        out: (..., N) contiguous, to write to.

    Raises:
        ValueError: types, shapes or layouts differ from the above.
    """
    rows, depth = x.x.shape[:-1].numel(), x.x.shape[-1]
    epilogue = Epilogue(x.x.dtype, activation, turn, out_scale=out_scale)
    tile = config or tile_for(rows, len(weight.q_NK), depth)
    if tile is not None and not tile.k:
        return int8_whole_depth_triton(x.x, weight, epilogue, tile, eps=eps, out=out)
    q, scale = rms_norm_quantize_rows_triton(x.x, eps)
    return int8_matmul_triton(q, scale, weight, epilogue, config=tile, out=out)
