"""A self-attention block over latents, in the parts that both forms of the model share."""

import math

import torch
from torch import Tensor, nn

from cortex.linear_add import LinearAdd
from cortex.model_config import ModelConfig
from cortex.norm_linear import NormLinear
from kernels.linear_add import Rows
from kernels.turn import Turn
from kernels.window_attention import KeysValues, window_attention


class LatentBlock(nn.Module):
    """Pre-RMSNorm attention, then a 4x GELU MLP.

    `forward` is the offline form. A stream calls `qkv` and `finish`, and attends the cached keys of
    the last steps in between. What attention reads is in steps of `out.in_scale`, if it has one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.window_steps = config.grid.window_steps
        self.project = NormLinear(dim, 3 * dim)
        self.out = LinearAdd(dim, dim, dropout=config.dropout)
        self.up = NormLinear(dim, 4 * dim, activation="gelu")
        self.down = LinearAdd(4 * dim, dim, dropout=config.dropout)
        # Residual updates of a fresh model sum to the scale of one, whatever its depth.
        with torch.no_grad():
            for linear in (self.out, self.down):
                linear.weight.mul_(1.0 / math.sqrt(2 * config.blocks))

    def forward(self, x_BSLD: Rows, turn: Turn, start: KeysValues, last: int | None = None) -> Rows:
        """Latents (B, S, L, D) of a session.

        Args:
            x_BSLD: the latents before, of every step.
            turn: how queries and keys turn.
            start: what the start is seen by.
            last: steps to compute, from the end; by default all.
        """
        q, k, v = self.qkv(x_BSLD, turn)
        x = x_BSLD
        if last is not None:
            # Earlier steps are seen, but have nothing to see.
            q, x = q[:, -last:], Rows(x.x[:, -last:], None)
        read = window_attention(
            q, k, v, window=self.window_steps, start=start, out_scale=self.out.in_scale
        )
        return self.finish(x, read)

    def begin(self, x_11LD: Rows) -> tuple[Rows, KeysValues]:
        """Latents (1, 1, L, D) of the start, which sees itself alone, and what it is seen by."""
        q, k, v = self.qkv(x_11LD)
        read = window_attention(q, k, v, window=1, out_scale=self.out.in_scale)
        return self.finish(x_11LD, read), KeysValues.of(k, v)

    def qkv(self, x_LD: Rows, turn: Turn | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (..., L, H, K), of latents (..., L, D).

        Args:
            x_LD: the latents.
            turn: how queries and keys turn; None leaves them as they are.
        """
        q, k, v = self.project(x_LD, turn).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q, k, v

    def finish(self, x_LD: Rows, read_LHK: Tensor) -> Rows:
        """Latents (..., L, D) after what attention read (..., L, H, K) and the MLP."""
        x: Rows = self.out(read_LHK.flatten(-2), x_LD.x)
        added: Rows = self.down(self.up(x), x.x)
        return added
