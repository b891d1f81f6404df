"""Evidence for the kinds of movement: every spike speaks for some and against others.

Given the movement, units fire almost independently, so that log probabilities add up over spikes,
as in naive Bayes. What a spike of each unit says is learnt; noise that units share makes a long
count say less than its sum, so that it grows with the square root of the time counted.

Source: naive Bayes decoding of Poisson units, Zhang et al. 1998, doi:10.1152/jn.1998.79.2.1017.

Shapes: B samples, S steps, N kinds of movement.
"""

import torch
from torch import Tensor, nn

from cortex.event_batch import EventBatch
from cortex.model_config import ModelConfig
from kernels.movement_velocity import SpikeEvidence, evidence_logits


class Evidence(nn.Module):
    """Logits of the kinds of movement from the spikes of the last steps."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.steps = config.event_steps
        # No unit speaks for anything before it has been learnt.
        self.unit = nn.Embedding(config.n_units, config.movements)
        nn.init.zeros_(self.unit.weight)
        self.bias_N = nn.Parameter(torch.zeros(config.movements))

    def tables(self) -> SpikeEvidence:
        """What is learnt, as the kernels take it."""
        return SpikeEvidence(self.unit.weight, self.bias_N, self.steps)

    def forward(self, batch: EventBatch) -> Tensor:
        """Logits (B, S, N) at every step of a session."""
        return evidence_logits(self.tables(), batch.columns())
