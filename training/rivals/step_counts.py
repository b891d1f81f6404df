"""Events as a dense array of counts a step, the input of decoders that know no events."""

import torch
from torch import Tensor

from cortex.event_batch import EventBatch


def root_counts(batch: EventBatch, n_units: int) -> Tensor:
    """(B, S, units) square roots of the spikes of each unit in each step.

    The root makes the variance of Poisson counts the same at every rate (Anscombe 1948).
    """
    spikes = (batch.value_BSE * batch.mask_BSE).float()
    counts = torch.zeros(*spikes.shape[:2], n_units, device=spikes.device)
    return counts.scatter_add(-1, batch.unit_BSE, spikes).sqrt()
