"""The training loss: velocity, the kind of movement, and the counts that were hidden."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.model import Model
from cortex.movements import velocity_if
from kernels.movement_velocity import kinds_velocity, mixed_velocity
from training.fitting.fit_config import FitConfig
from training.samples.masked_spikes import HiddenCounts
from training.samples.trial_tensors import TrialBatch

# Linear beyond so many standard deviations: no outlier trial owns the loss.
HUBER_DELTA = 4.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What turns a part's sums into its share of the whole batch's mean.

    Attributes:
        labels: labelled bins of the whole batch, over the number of parts.
        steps: steps of the whole batch, likewise.
    """

    labels: Tensor
    steps: Tensor


class Objective(nn.Module):
    """A model with its loss, as one module: what is sharded, compiled and differentiated."""

    def __init__(self, model: DecoderModule, config: FitConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: TrialBatch, hidden: HiddenCounts | None, share: Share) -> Tensor:
        """Mean loss of a batch, or its share of it where the batch is one part of several.

        Args:
            batch: the trials and their labels.
            hidden: the counts to predict, and the events without them; None for models that
                learn from velocity alone.
            share: the whole batch's denominators.
        """
        config = self.config
        model = self.model
        phases = torch.arange(model.shape.grid.bins_per_step, device=batch.inside_BS.device)
        if not isinstance(model, Model):
            return self._velocity_loss(model(batch.events, phases), batch, share)
        events = batch.events if hidden is None else hidden.batch
        latents = model.encode(events)
        query = model.velocity_query(phases, events.unit_BSE.shape[1])
        read_BSPD = model.read_velocity(latents, query)
        velocity = kinds_velocity(read_BSPD, model.velocity_head())
        logits = None if model.evidence is None else model.evidence(events)
        decoded = model.denormalise(mixed_velocity(velocity, logits))
        loss = config.velocity_weight * self._velocity_loss(decoded, batch, share)
        if hidden is not None:
            counts = model.count_logits(latents, hidden.unit_BSQ)
            loss = loss + config.masked_weight * _count_loss(counts, hidden, batch, share)
        if logits is not None:
            loss = loss + config.movement_weight * _movement_loss(logits, batch, share)
            loss = loss + config.expert_weight * self._expert_loss(velocity, batch, share)
        return loss

    def decode(self, events: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """The model's velocities: its forward, where the model is sharded as well."""
        velocity: Tensor = self.model(events, query_phase_Q)
        return velocity

    def _velocity_loss(self, decoded_BSP2: Tensor, batch: TrialBatch, share: Share) -> Tensor:
        error = (decoded_BSP2 - batch.velocity_BSP2) / self.model.velocity_scale
        # Weighted, not selected: shapes stay fixed and nothing waits for the device.
        loss = F.huber_loss(error, torch.zeros_like(error), delta=HUBER_DELTA, reduction="none")
        return (loss.sum(-1) * batch.labelled_BSP).sum() / share.labels

    def _expert_loss(self, velocity_BSPN2: Tensor, batch: TrialBatch, share: Share) -> Tensor:
        """The velocity loss of each trial's own kind of movement, where that is known."""
        own = self.model.denormalise(velocity_if(velocity_BSPN2, batch.movement_B.clamp_min(0)))
        known_BSP = batch.labelled_BSP & (batch.movement_B >= 0)[:, None, None]
        return self._velocity_loss(own, replace(batch, labelled_BSP=known_BSP), share)


def _count_loss(logits: Tensor, hidden: HiddenCounts, batch: TrialBatch, share: Share) -> Tensor:
    bucket = hidden.count_BSQ.clamp(max=logits.shape[-1] - 1)
    loss = F.cross_entropy(logits.float().flatten(0, -2), bucket.flatten(), reduction="none")
    per_step = loss.view_as(bucket).mean(-1)
    return (per_step * batch.inside_BS).sum() / share.steps


def _movement_loss(logits_BSN: Tensor, batch: TrialBatch, share: Share) -> Tensor:
    kind = batch.movement_B[:, None].expand(logits_BSN.shape[:-1])
    loss = F.cross_entropy(
        logits_BSN.flatten(0, -2), kind.flatten(), ignore_index=-1, reduction="none"
    )
    return (loss.view_as(kind) * batch.labelled_BSP.sum(-1)).sum() / share.labels
