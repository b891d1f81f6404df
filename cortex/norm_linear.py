"""RMS norm and the linear map that follows it, as one layer."""

import torch
from torch import Tensor, nn

from kernels.linear_add import Rows
from kernels.norm_linear import Activation, fold, norm_linear
from kernels.turn import Turn

NORM_EPS = 1e-6


class NormLinear(nn.Module):
    """y = activation(W rms_norm(x)); once weights are final, the norm's gain is folded into W."""

    def __init__(self, inputs: int, outputs: int, *, activation: Activation | None = None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(inputs))
        self.weight = nn.Linear(inputs, outputs, bias=False).weight
        self.activation: Activation | None = activation
        self._folded: Tensor | None = None

    def forward(self, x: Rows, turn: Turn | None = None) -> Tensor:
        """(..., outputs) from (..., inputs), the leading outputs turned as `turn` says."""
        weight, gain = (self.weight, self.gain) if self._folded is None else (self._folded, None)
        return norm_linear(
            x.x, weight, gain, NORM_EPS, self.activation, squares_MP=x.squares_MP, turn=turn
        )

    @torch.no_grad()
    def prepare(self) -> None:
        """Folds the gain in, once weights and device are final; `train` forgets it."""
        self._folded = fold(self.weight, self.gain)

    def train(self, mode: bool = True) -> "NormLinear":
        """As for any module."""
        self._folded = None
        return super().train(mode)
