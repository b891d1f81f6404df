"""Ragged events of many samples as one padded batch, grouped by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortex.events import Events
from cortex.ragged_events import IntColumn, RaggedEvents
from kernels.event_attention import EventColumns


@dataclass(frozen=True, kw_only=True)
class EventBatch:
    """Events of B samples over S steps, padded to E events a step.

    Attributes:
        unit_BSE: unit indices; 0 where padded.
        phase_BSE: bin within the step; 0 where padded.
        value_BSE: spike counts; 0 where padded.
        mask_BSE: True where an event is real. Training leaves holes where it takes events away.
        count_BS: places, from the first on, that a step's events and holes lie in.
    """

    unit_BSE: Tensor
    phase_BSE: Tensor
    value_BSE: Tensor
    mask_BSE: Tensor
    count_BS: Tensor

    @classmethod
    def of(cls, columns: EventColumns) -> "EventBatch":
        """The batch of these columns."""
        return cls(**columns._asdict())

    def to(self, device: torch.device) -> "EventBatch":
        """The same batch on another device."""
        return EventBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def columns(self) -> EventColumns:
        """The events as the kernels take them."""
        return EventColumns(
            self.unit_BSE, self.phase_BSE, self.value_BSE, self.mask_BSE, self.count_BS
        )

    def rows(self, which: slice) -> "EventBatch":
        """Some of the samples."""
        return EventBatch(**{name: tensor[which] for name, tensor in vars(self).items()})


def collate(
    samples: Sequence[Events],
    *,
    n_steps: int,
    bins_per_step: int,
) -> EventBatch:
    """Groups events by sample and step, without Python work per event.

    Args:
        samples: events of each sample, sorted, time_bin in [0, n_steps * bins_per_step) counted
            from the sample's own first bin.
        n_steps: steps S of the batch.
        bins_per_step: bins in a step.
    """
    return collate_ragged(RaggedEvents.of(samples), n_steps=n_steps, bins_per_step=bins_per_step)


def collate_ragged(
    events: RaggedEvents,
    *,
    n_steps: int,
    bins_per_step: int,
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

    count_BS = torch.from_numpy(counts.reshape(n_samples, n_steps))
    return EventBatch(
        unit_BSE=scatter(events.unit),
        phase_BSE=scatter(phase),
        value_BSE=scatter(events.value),
        mask_BSE=torch.arange(width) < count_BS[..., None],
        count_BS=count_BS,
    )
