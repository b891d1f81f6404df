"""A linear layer and the residual that it is added to, as one layer."""

from torch import Tensor, nn
from torch.nn import functional as F

from kernels.linear_add import Rows, linear_add


class LinearAdd(nn.Module):
    """y = residual + W x; in training, elements of W x drop out.

    Attributes:
        in_scale: step of inputs in integers, which Int8LinearAdd can take; None for floats.
    """

    in_scale: float | None = None

    def __init__(self, inputs: int, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Linear(inputs, outputs, bias=False).weight
        self.dropout = dropout

    def forward(self, x: Tensor, residual: Tensor) -> Rows:
        """(..., outputs) from (..., inputs) and a residual, which may lack leading dimensions."""
        if self.training:
            return Rows(residual + F.dropout(F.linear(x, self.weight), self.dropout))
        return linear_add(x, self.weight, residual)
