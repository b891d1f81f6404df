"""What follows the integer sums of a product of 8-bit operands.

Formula, for the sum t of a row with scale s(x) and an output with scale s(w):

    y = activation(s(x) s(w) t) + residual

or, instead of an activation, the pairs of the leading columns turned as in kernels.rotary. With a
scale s(y) for the result, round(y / s(y)) clipped to +-127 is written: the next product's operand.

Shapes: M rows, N outputs, R rows of the residual.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from kernels.norm_linear import Activation, Turn, turned_reference
from kernels.quantize_rows import quantize_with_reference


@dataclass(frozen=True)
class Epilogue:
    """The operations that follow, of which a turn and an activation exclude each other.

    Attributes:
        activation: None, or "gelu" in its tanh approximation.
        turn: how the leading columns turn, or None.
        residual: (..., N) what is added, or None; of the rows' leading dimensions it may lack the
            first ones, and is then repeated over them.
        out_scale: the scale of an int8 result, or None.
    """

    activation: Activation | None = None
    turn: Turn | None = None
    residual: Tensor | None = None
    out_scale: float | None = None

    def of(self, total_MN: Tensor, scale_M: Tensor | float, scale_N: Tensor) -> Tensor:
        """Plain PyTorch: what the kernels must equal.

        Args:
            total_MN: (..., N) exact sums, of any type.
            scale_M: (...) float32 scales of the rows, or one of them all.
            scale_N: (N,) float32 scales of the outputs.

        Returns:
            (..., N) float32, or int8 given a scale.
        """
        rows = scale_M if isinstance(scale_M, float) else scale_M[..., None]
        y = total_MN.float().mul_(rows).mul_(scale_N)
        if self.activation is not None:
            y = F.gelu(y, approximate="tanh")
        if self.turn is not None:
            y = turned_reference(y, self.turn)
        if self.residual is not None:
            y = y.add_(self.residual)
        return y if self.out_scale is None else quantize_with_reference(y, self.out_scale)
