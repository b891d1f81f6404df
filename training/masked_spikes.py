"""The self-supervised task: predict counts that were hidden from the input."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cortex.event_batch import EventBatch


@dataclass(frozen=True, kw_only=True)
class HiddenCounts:
    """A batch with some counts hidden, and what they were.

    Attributes:
        batch: the batch without the hidden events.
        unit_BSQ: Q units a step whose counts were hidden.
        count_BSQ: spikes that each of them fired in the step.
    """

    batch: EventBatch
    unit_BSQ: Tensor
    count_BSQ: Tensor


def hide_counts(
    batch: EventBatch, *, n_units: int, per_step: int, generator: torch.Generator
) -> HiddenCounts:
    """Hides the counts of a few units in every step.

    Half of the units are drawn from those that fired in the step, where any did, and half from
    all: silence has to be told from firing.
    """
    mask = batch.mask_BSE
    shape = (*mask.shape[:2], per_step)
    anyone = torch.randint(n_units, shape, generator=generator)
    n_fired = mask.sum(-1, keepdim=True)
    draw = (torch.rand(shape, generator=generator) * n_fired).long()
    fired = batch.unit_BSE.gather(-1, draw)
    want_fired = (torch.arange(per_step) < per_step // 2) & (n_fired > 0)
    unit_BSQ = torch.where(want_fired, fired, anyone)
    match = (batch.unit_BSE[..., None] == unit_BSQ[:, :, None]) & mask[..., None]
    return HiddenCounts(
        batch=replace(batch, mask_BSE=mask & ~match.any(-1)),
        unit_BSQ=unit_BSQ,
        count_BSQ=(match * batch.value_BSE[..., None]).sum(2),
    )
