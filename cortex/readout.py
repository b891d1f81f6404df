"""A head: queries within a step attend the latents of the last few steps."""

from torch import Tensor, nn

from cortex.linear_add import LinearAdd
from cortex.model_config import ModelConfig
from cortex.norm_linear import NORM_EPS, NormLinear
from kernels.linear_add import Rows
from kernels.turn import Turn
from kernels.window_attention import KeysValues


class Readout(nn.Module):
    """Cross-attention from queries to latents, and a projection an output dimension.

    As in LatentBlock, the attention between `queries`, `keys_values` and `add` is the caller's, and
    reads in steps of `out.in_scale`.
    """

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q = NormLinear(dim, dim)
        self.kv = NormLinear(dim, 2 * dim)
        self.out = LinearAdd(dim, dim)
        self.output_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.outputs = nn.Linear(dim, outputs)

    def queries(self, query_QD: Tensor) -> Tensor:
        """Queries (..., Q, H, K), not turned, of query vectors (..., Q, D)."""
        q: Tensor = self.q(Rows(query_QD, None)).unflatten(-1, (self.heads, -1))
        return q

    def keys_values(self, x_LD: Rows, turn: Turn | None = None) -> tuple[Tensor, Tensor]:
        """Keys, turned as `turn` says, and values, each (..., L, H, K), of latents (..., L, D)."""
        k, v = self.kv(x_LD, turn).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return k, v

    def begin(self, x_11LD: Rows) -> KeysValues:
        """What is seen of the start's latents (1, 1, L, D)."""
        return KeysValues.of(*self.keys_values(x_11LD))

    def add(self, query_QD: Tensor, read_QHK: Tensor) -> Tensor:
        """Query vectors (..., Q, D) with what they read (..., Q, H, K)."""
        added: Rows = self.out(read_QHK.flatten(-2), query_QD)
        return added.x

    def project(self, x_QD: Tensor) -> Tensor:
        """Outputs (..., Q, outputs) of the vectors that `add` gave."""
        outputs: Tensor = self.outputs(self.output_norm(x_QD))
        return outputs
