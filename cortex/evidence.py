"""Evidence for the kinds of movement: every spike speaks for some and against others.

Given the movement, units fire almost independently, so that log probabilities add up over spikes,
as in naive Bayes. What a spike of each unit says is learnt; noise that units share makes a long
count say less than its sum, so that it grows with the square root of the time counted.

Source: naive Bayes decoding of Poisson units, Zhang et al. 1998, doi:10.1152/jn.1998.79.2.1017.

Shapes: B samples, S steps, J steps of events that a step sees, N kinds of movement.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cortex.event_batch import EventBatch
from cortex.model_config import ModelConfig


class Evidence(nn.Module):
    """Logits of the kinds of movement from the spikes of the last J steps."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.steps = config.event_steps
        # No unit speaks for anything before it has been learnt.
        self.unit = nn.Embedding(config.n_units, config.movements)
        nn.init.zeros_(self.unit.weight)
        self.bias_N = nn.Parameter(torch.zeros(config.movements))

    def forward(self, batch: EventBatch) -> Tensor:
        """Logits (B, S, N) at every step of a session."""
        sums_BSN = self.step_sums(batch)
        sums_BSNJ = F.pad(sums_BSN, (0, 0, self.steps - 1, 0)).unfold(1, self.steps, 1)
        steps = torch.arange(1, sums_BSN.shape[1] + 1, device=sums_BSN.device)
        return self.logits(sums_BSNJ.sum(-1), steps)

    def step_sums(self, batch: EventBatch) -> Tensor:
        """(B, S, N) what the spikes of each step say."""
        spikes_BSE = (batch.value_BSE * batch.mask_BSE).float()
        said_BSEN: Tensor = self.unit(batch.unit_BSE).float() * spikes_BSE[..., None]
        return said_BSEN.sum(-2)

    def logits(self, sums_N: Tensor, steps: Tensor) -> Tensor:
        """Logits (..., N) from the sums (..., N) over the last J steps.

        Args:
            sums_N: sums of `step_sums`.
            steps: (...) steps since the stream began, this one included.
        """
        counted = steps.clamp(max=self.steps).float()
        return sums_N * counted.rsqrt()[..., None] + self.bias_N.float()
