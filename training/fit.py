"""Fits a model to trials."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cortex.cross_attention import step_numbers
from cortex.errors import InputError
from cortex.event_batch import EventBatch, collate
from cortex.model import Model
from training.augmentation import AugmentationConfig, augment
from training.masked_spikes import hide_counts
from training.trial_samples import TrialSample


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is fitted.

    Attributes:
        steps: optimiser steps.
        batch_trials: trials a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's.
        masked_weight: weight of the masked-spike loss beside the velocity loss.
        masked_per_step: units a step whose counts are hidden.
        average_decay: decay of the weights' running average, which is what is kept.
        seed: of every random choice.
        augmentation: variation of the trials.
    """

    steps: int = 300
    batch_trials: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    masked_weight: float = 0.05
    masked_per_step: int = 4
    average_decay: float = 0.98
    seed: int = 0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


def fit(
    model: Model,
    samples: Sequence[TrialSample],
    config: FitConfig,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Model:
    """Trains in place and returns the model with its averaged weights, in evaluation mode.

    Args:
        model: a fresh model.
        samples: the training trials; output scaling is taken from them alone.
        config: how.
        on_step: called after each step with its number, from 1, and its loss.

    Raises:
        InputError: no sample has a label.
    """
    labels = np.concatenate([s.velocity[s.labelled] for s in samples])
    if not len(labels):
        raise InputError("training: no trial has a velocity label, expected at least one")
    model.velocity_mean.copy_(torch.from_numpy(labels.mean(0)))
    model.velocity_scale.copy_(torch.from_numpy(labels.std(0).clip(min=1e-6)))
    device = model.velocity_mean.device
    rng = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )
    averaged = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay), use_buffers=False
    )
    model.train()
    order = _shuffled_forever(len(samples), rng)
    for step in range(1, config.steps + 1):
        trials = [
            augment(samples[next(order)], config.augmentation, model.config.n_units, rng)
            for _ in range(config.batch_trials)
        ]
        loss = _loss(model, trials, config, generator, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        on_step(step, float(loss.detach()))
    # The averaged module is a copy of `model`.
    return cast(Model, averaged.module).eval()


def _shuffled_forever(n: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(n)


def _loss(
    model: Model,
    trials: Sequence[TrialSample],
    config: FitConfig,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    n_steps = max(t.n_steps for t in trials)
    bins = model.config.grid.bins_per_step
    batch = collate([t.events for t in trials], n_steps=n_steps, bins_per_step=bins)
    velocity = torch.zeros(len(trials), n_steps, bins, 2)
    labelled = torch.zeros(len(trials), n_steps, bins, dtype=torch.bool)
    for i, trial in enumerate(trials):
        velocity[i, : trial.n_steps] = torch.from_numpy(trial.velocity)
        labelled[i, : trial.n_steps] = torch.from_numpy(trial.labelled)
    hidden = hide_counts(
        batch, n_units=model.config.n_units, per_step=config.masked_per_step, generator=generator
    )
    visible: EventBatch = hidden.batch.to(device)
    step_BS = step_numbers(visible)
    latents = model.encode(visible)
    decoded = model.read_velocity(latents, step_BS, torch.arange(bins, device=device))
    where = labelled.to(device)
    error = (decoded - velocity.to(device)) / model.velocity_scale
    # Linear beyond four standard deviations: no outlier trial owns the loss.
    velocity_loss = F.huber_loss(
        error[where], torch.zeros_like(error[where]), delta=4.0, reduction="sum"
    ) / where.sum().clamp_min(1)
    if config.masked_weight == 0:
        return velocity_loss
    logits = model.count_logits(latents, step_BS, hidden.unit_BSQ.to(device))
    bucket = hidden.count_BSQ.to(device).clamp(max=model.config.max_count)
    inside = torch.arange(n_steps) < torch.tensor([[t.n_steps] for t in trials])
    masked_loss = F.cross_entropy(
        logits[inside.to(device)].flatten(0, -2), bucket[inside.to(device)].flatten()
    )
    return velocity_loss + config.masked_weight * masked_loss
