"""RMS norm and the linear map that follows it, as one layer."""

import torch
from torch import Tensor, nn

from kernels.norm_linear import Activation, fold, norm_linear

NORM_EPS = 1e-6


class NormLinear(nn.Module):
    """y = activation(W rms_norm(x)); once weights are final, the norm's gain is folded into W."""

    def __init__(self, inputs: int, outputs: int, *, activation: Activation | None = None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(inputs))
        self.weight = nn.Linear(inputs, outputs, bias=False).weight
        self.activation: Activation | None = activation
        self._folded: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., outputs) from (..., inputs)."""
        if self._folded is not None:
            return norm_linear(x, self._folded, None, NORM_EPS, self.activation)
        return norm_linear(x, self.weight, self.gain, NORM_EPS, self.activation)

    @torch.no_grad()
    def prepare(self) -> None:
        """Folds the gain in, once weights and device are final; `train` forgets it."""
        self._folded = fold(self.weight, self.gain)

    def train(self, mode: bool = True) -> "NormLinear":
        """As for any module."""
        self._folded = None
        return super().train(mode)
