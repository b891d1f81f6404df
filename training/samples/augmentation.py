"""What is done to trials each time that training sees them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.samples.trial_tensors import TrialBatch


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How strongly trials are varied.

    Small recordings overfit without it; heavy event and unit dropout is what helps most.

    Attributes:
        crop_steps: longest piece of a trial that is seen at once. A piece begins empty as a trial
            does, so pieces much shorter than trials teach the model when trials begin, wrongly.
        event_dropout: probability of losing each event.
        unit_dropout: each time, a share of the units drawn from [0, unit_dropout) falls silent.
        unit_mixing: each time, a share of the units drawn from [0, unit_mixing) fires as in another
            trial of the same kind of movement, where kinds are known.
    """

    crop_steps: int = 192
    event_dropout: float = 0.3
    unit_dropout: float = 0.5
    unit_mixing: float = 0.0


def augment(
    batch: TrialBatch, config: AugmentationConfig, n_units: int, generator: torch.Generator
) -> TrialBatch:
    """The batch with random units and events missing; its labels are untouched."""
    mask = batch.events.mask_BSE

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=mask.device)

    share_B1 = uniform(len(mask), 1) * config.unit_dropout
    silent_BU = uniform(len(mask), n_units) < share_B1
    silent = silent_BU.gather(1, batch.events.unit_BSE.flatten(1)).view_as(mask)
    keep = mask & ~silent & (uniform(*mask.shape) >= config.event_dropout)
    return replace(batch, events=replace(batch.events, mask_BSE=keep))
