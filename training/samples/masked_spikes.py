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

    def rows(self, which: slice) -> "HiddenCounts":
        """Some of the samples."""
        return HiddenCounts(
            batch=self.batch.rows(which),
            unit_BSQ=self.unit_BSQ[which],
            count_BSQ=self.count_BSQ[which],
        )


def hide_counts(
    batch: EventBatch, *, units_B2: Tensor, per_step: int, generator: torch.Generator
) -> HiddenCounts:
    """Hides the counts of a few units in every step.

    Half of the units are drawn from those that fired in the step, where enough did, and the others
    from all: silence has to be told from firing.

    Args:
        batch: the input.
        units_B2: first and one past the last unit of each sample's session.
        per_step: units Q whose counts are hidden in a step.
        generator: source of randomness, on the batch's device.
    """
    mask = batch.mask_BSE
    device = mask.device
    shape = (*mask.shape[:2], per_step)
    first, stop = (units_B2[:, i, None, None] for i in (0, 1))
    anyone = first + (_uniform(shape, generator, device) * (stop - first)).long()
    # A random event of those that are left: the mask may have holes.
    order = torch.where(mask, _uniform(tuple(mask.shape), generator, device), -1.0)
    fired = batch.unit_BSE.gather(-1, order.topk(min(per_step, mask.shape[-1]), -1).indices)
    n_fired = mask.sum(-1, keepdim=True)
    slot = torch.arange(per_step, device=device) % n_fired.clamp(1, fired.shape[-1])
    # Of few events no more than half are chosen, lest a quiet recording lose all of them.
    most = (n_fired // 2).clamp(max=per_step // 2)
    want_fired = torch.arange(per_step, device=device) < most
    unit_BSQ = torch.where(want_fired, fired.gather(-1, slot), anyone)
    match = (batch.unit_BSE[..., None] == unit_BSQ[:, :, None]) & mask[..., None]
    return HiddenCounts(
        batch=replace(batch, mask_BSE=mask & ~match.any(-1)),
        unit_BSQ=unit_BSQ,
        count_BSQ=(match * batch.value_BSE[..., None]).sum(2),
    )


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=device)
