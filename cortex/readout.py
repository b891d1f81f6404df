"""A head: queries within a step attend the latents of the last few steps."""

from torch import Tensor, nn

from cortex.model_config import ModelConfig
from cortex.norm_linear import NormLinear


class Readout(nn.Module):
    """Cross-attention from queries to latents, and a projection a output dimension.

    As in LatentBlock, the attention between `queries`, `keys_values` and `finish` is the caller's.
    """

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q = NormLinear(dim, dim)
        self.kv = NormLinear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim, bias=False)
        self.output_norm = nn.RMSNorm(dim, eps=1e-6)
        self.outputs = nn.Linear(dim, outputs)

    def queries(self, query_QD: Tensor) -> Tensor:
        """Queries (..., Q, H, K), not rotated, of query vectors (..., Q, D)."""
        q: Tensor = self.q(query_QD).unflatten(-1, (self.heads, -1))
        return q

    def keys_values(self, x_LD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, not rotated, and values, each (..., L, H, K), of latents (..., L, D)."""
        k, v = self.kv(x_LD).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return k, v

    def finish(self, query_QD: Tensor, read_QHK: Tensor) -> Tensor:
        """Outputs (..., Q, outputs) from what the queries read (..., Q, H, K)."""
        x = query_QD + self.out(read_QHK.flatten(-2))
        outputs: Tensor = self.outputs(self.output_norm(x))
        return outputs
