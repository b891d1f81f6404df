"""A head: queries within a step attend the latents of the last few steps."""

from torch import Tensor, nn

from cortex.model_config import ModelConfig
from kernels.rotary import rotate


class Readout(nn.Module):
    """Cross-attention from queries to latents, and a projection a output dimension.

    As in LatentBlock, the attention between `queries`, `keys_values` and `finish` is the caller's.
    """

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.query_norm = nn.RMSNorm(dim, eps=1e-6)
        self.latent_norm = nn.RMSNorm(dim, eps=1e-6)
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.output_norm = nn.RMSNorm(dim, eps=1e-6)
        self.outputs = nn.Linear(dim, outputs)

    def queries(self, query_QD: Tensor, phases: tuple[Tensor, Tensor]) -> Tensor:
        """Rotated queries (..., Q, H, K) of query vectors (..., Q, D)."""
        q = self.q(self.query_norm(query_QD)).unflatten(-1, (self.heads, -1))
        return rotate(q, phases)

    def keys_values(self, x_LD: Tensor, phases: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values, each (..., L, H, K), of latents (..., L, D)."""
        kv = self.kv(self.latent_norm(x_LD)).unflatten(-1, (2, self.heads, -1))
        k, v = kv.unbind(-3)
        return rotate(k, phases), v

    def finish(self, query_QD: Tensor, read_QHK: Tensor) -> Tensor:
        """Outputs (..., Q, outputs) from what the queries read (..., Q, H, K)."""
        x = query_QD + self.out(read_QHK.flatten(-2))
        outputs: Tensor = self.outputs(self.output_norm(x))
        return outputs
