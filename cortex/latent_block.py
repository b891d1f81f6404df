"""A self-attention block over latents, in the parts that both forms of the model share."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cortex.model_config import ModelConfig
from kernels.rotary import rotate
from kernels.window_attention import window_attention


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
        self.attention_norm = nn.RMSNorm(dim, eps=1e-6)
        self.qkv_linear = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.mlp_norm = nn.RMSNorm(dim, eps=1e-6)
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        # Residual updates of a fresh model sum to the scale of one, whatever its depth.
        with torch.no_grad():
            for linear in (self.out, self.down):
                linear.weight.mul_(1.0 / math.sqrt(2 * config.blocks))

    def forward(self, x_BSLD: Tensor, phases: tuple[Tensor, Tensor]) -> Tensor:
        """Latents (B, S, L, D) of every step of a session, given all steps' rotary phases."""
        q, k, v = self.qkv(x_BSLD, phases)
        return self.finish(x_BSLD, window_attention(q, k, v, window=self.window_steps))

    def qkv(self, x_SLD: Tensor, phases: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, each (..., L, H, K), of latents (..., L, D)."""
        qkv = self.qkv_linear(self.attention_norm(x_SLD)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(-3)
        return rotate(q, phases), rotate(k, phases), v

    def finish(self, x_SLD: Tensor, read_SLHK: Tensor) -> Tensor:
        """Latents (..., L, D) after what attention read (..., L, H, K) and the MLP."""
        x: Tensor = x_SLD + self.dropout(self.out(read_SLHK.flatten(-2)))
        hidden = F.gelu(self.up(self.mlp_norm(x)), approximate="tanh")
        return x.add(self.dropout(self.down(hidden)))
