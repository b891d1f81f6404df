"""Trials made of two: some units' spikes come from another trial of the same kind of movement.

Given the movement, units fire almost independently, so that such a mixture is as good as a trial
that was recorded, and there are very many of them. What the units of one trial happen to share, a
small recording's network would learn by heart; here there is nothing of that to learn.

Source: the trial shuffle of population coding, Averbeck et al. 2006, doi:10.1038/nrn1888, as an
augmentation; labels are mixed as in Zhang et al. 2018, arXiv:1710.09412.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cortex.event_batch import EventBatch
from training.samples.trial_tensors import TrialBatch


def mix_units(
    batch: TrialBatch,
    mates: TrialBatch,
    *,
    largest_share: float,
    n_units: int,
    generator: torch.Generator,
) -> TrialBatch:
    """The batch with a random share of the units taken from the mates, and labels mixed alike.

    Args:
        batch: B trials.
        mates: B trials of the same kinds of movement.
        largest_share: shares are drawn from [0, largest_share), one a trial.
        n_units: size of the unit vocabulary.
        generator: source of randomness, on the batch's device.
    """
    device = batch.inside_BS.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    share_B = uniform(len(batch.movement_B)) * largest_share
    taken_BU = uniform(len(share_B), n_units) < share_B[:, None]
    own, other = batch.events, mates.events
    events = EventBatch(
        **{
            name: torch.cat((getattr(own, name), getattr(other, name)), -1)
            for name in ("unit_BSE", "phase_BSE", "value_BSE")
        },
        mask_BSE=torch.cat(
            (
                own.mask_BSE & ~_of(taken_BU, own.unit_BSE),
                # The trial ends where its own labels end.
                other.mask_BSE & _of(taken_BU, other.unit_BSE) & batch.inside_BS[..., None],
            ),
            -1,
        ),
        count_BS=torch.full_like(own.count_BS, own.mask_BSE.shape[-1]) + other.count_BS,
    )
    both_BSP = batch.labelled_BSP & mates.labelled_BSP
    weight_BSP = share_B[:, None, None] * both_BSP
    velocity = torch.lerp(batch.velocity_BSP2, mates.velocity_BSP2, weight_BSP[..., None])
    return replace(batch, events=events, velocity_BSP2=velocity)


def _of(unit_mask_BU: Tensor, unit_BSE: Tensor) -> Tensor:
    """(B, S, E) whether each event's unit is in its trial's mask."""
    return unit_mask_BU.gather(1, unit_BSE.flatten(1)).view_as(unit_BSE)
