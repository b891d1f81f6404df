"""Batches padded to few sizes, so that few CUDA graphs serve all."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cortex.event_batch import EventBatch

LEAST_WIDTH = 8


def bucket(number: int, least: int = 1) -> int:
    """The power of two that holds so many."""
    return max(1 << max(number - 1, 0).bit_length(), least)


def padded(batch: EventBatch) -> EventBatch:
    """The batch with empty samples and masked events added, up to the sizes of its bucket."""
    n_samples, _, width = batch.unit_BSE.shape
    samples = bucket(n_samples) - n_samples
    events = bucket(width, LEAST_WIDTH) - width

    def pad(x: Tensor) -> Tensor:
        wide = F.pad(x, (0, events)) if x.dim() == 3 else x
        return torch.cat((wide, wide.new_zeros((samples, *wide.shape[1:])))) if samples else wide

    return EventBatch(**{name: pad(tensor) for name, tensor in vars(batch).items()})
