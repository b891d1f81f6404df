"""A self-attention block over latents, in the parts that both forms of the model share."""

import math

import torch
from torch import Tensor, nn

from cortex.model_config import ModelConfig
from cortex.norm_linear import NormLinear
from kernels.linear_add import linear_add
from kernels.window_attention import rotary_window_attention


class LatentBlock(nn.Module):
    """Pre-RMSNorm attention, then a 4x GELU MLP.

    `forward` is the offline form. A stream calls `qkv` and `finish`, and attends the cached keys of
    the last steps in between.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.window_steps = config.grid.window_steps
        self.project = NormLinear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim, bias=False)
        self.up = NormLinear(dim, 4 * dim, activation="gelu")
        self.down = nn.Linear(4 * dim, dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        # Residual updates of a fresh model sum to the scale of one, whatever its depth.
        with torch.no_grad():
            for linear in (self.out, self.down):
                linear.weight.mul_(1.0 / math.sqrt(2 * config.blocks))

    def forward(self, x_BSLD: Tensor, phases: tuple[Tensor, Tensor]) -> Tensor:
        """Latents (B, S, L, D) of every step of a session, given all steps' rotary phases."""
        q, k, v = self.qkv(x_BSLD).unbind(-3)
        read = rotary_window_attention(q, k, v, phases, phases, window=self.window_steps)
        return self.finish(x_BSLD, read)

    def qkv(self, x_SLD: Tensor) -> Tensor:
        """Queries, keys and values (..., L, 3, H, K), not rotated, of latents (..., L, D)."""
        qkv: Tensor = self.project(x_SLD).unflatten(-1, (3, self.heads, -1))
        return qkv

    def finish(self, x_SLD: Tensor, read_SLHK: Tensor) -> Tensor:
        """Latents (..., L, D) after what attention read (..., L, H, K) and the MLP."""
        x = self._add(x_SLD, read_SLHK.flatten(-2), self.out)
        return self._add(x, self.up(x), self.down)

    def _add(self, x: Tensor, inputs: Tensor, linear: nn.Linear) -> Tensor:
        if self.training:
            dropped: Tensor = self.dropout(linear(inputs))
            return x + dropped
        return linear_add(inputs, linear.weight, x)
