"""Ragged events of many samples as one padded batch, grouped by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortex.events import Events
from cortex.ragged_events import IntColumn, RaggedEvents


@dataclass(frozen=True, kw_only=True)
class EventBatch:
    """Events of B samples over S steps, padded to E events a step.

    Attributes:
        unit_BSE: unit indices; 0 where padded.
        phase_BSE: bin within the step; 0 where padded.
        value_BSE: spike counts; 0 where padded.
        mask_BSE: True where an event is real. `collate` puts a step's events first; training
            leaves holes where it takes events away.
        first_step_B: the stream's own number of each sample's first step.
    """

    unit_BSE: Tensor
    phase_BSE: Tensor
    value_BSE: Tensor
    mask_BSE: Tensor
    first_step_B: Tensor

    def to(self, device: torch.device) -> "EventBatch":
        """The same batch on another device."""
        return EventBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def rows(self, which: slice) -> "EventBatch":
        """Some of the samples."""
        return EventBatch(**{name: tensor[which] for name, tensor in vars(self).items()})


def collate(
    samples: Sequence[Events],
    *,
    n_steps: int,
    bins_per_step: int,
    first_step: Sequence[int] | None = None,
) -> EventBatch:
    """Groups events by sample and step, without Python work per event.

    Args:
        samples: events of each sample, sorted, time_bin in [0, n_steps * bins_per_step) counted
            from the sample's own first bin.
        n_steps: steps S of the batch.
        bins_per_step: bins in a step.
        first_step: number of each sample's first step; 0 when not given.
    """
    return collate_ragged(
        RaggedEvents.of(samples),
        n_steps=n_steps,
        bins_per_step=bins_per_step,
        first_step=first_step,
    )


def collate_ragged(
    events: RaggedEvents,
    *,
    n_steps: int,
    bins_per_step: int,
    first_step: Sequence[int] | None = None,
) -> EventBatch:
    """`collate`, of samples that lie together already."""
    n_samples = len(events)
    step, phase = np.divmod(events.time_bin, bins_per_step)
    group = np.repeat(np.arange(n_samples) * n_steps, events.count_B) + step
    counts = np.bincount(group, minlength=n_samples * n_steps)
    rank = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = max(int(counts.max(initial=0)), 1)

    def scatter(column: IntColumn) -> Tensor:
        padded = np.zeros((n_samples * n_steps, width), np.int64)
        padded[group, rank] = column
        return torch.from_numpy(padded.reshape(n_samples, n_steps, width))

    mask = torch.arange(width) < torch.from_numpy(counts.reshape(n_samples, n_steps, 1))
    return EventBatch(
        unit_BSE=scatter(events.unit),
        phase_BSE=scatter(phase),
        value_BSE=scatter(events.value),
        mask_BSE=mask,
        first_step_B=torch.as_tensor(
            np.zeros(n_samples, np.int64)
            if first_step is None
            else np.asarray(first_step, np.int64)
        ),
    )
