"""Ragged events of many samples as one padded batch, grouped by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortex.events import Events
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
        first_step_B: the stream's own number of each sample's first step.
    """

    unit_BSE: Tensor
    phase_BSE: Tensor
    value_BSE: Tensor
    mask_BSE: Tensor
    count_BS: Tensor
    first_step_B: Tensor

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
    lengths = [len(sample) for sample in samples]
    unit, time_bin, value = (
        np.concatenate([getattr(sample, name) for sample in samples])
        for name in ("unit", "time_bin", "value")
    )
    step, phase = np.divmod(time_bin, bins_per_step)
    group = np.repeat(np.arange(len(samples)), lengths) * n_steps + step
    counts = np.bincount(group, minlength=len(samples) * n_steps)
    rank = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = max(int(counts.max(initial=0)), 1)

    def scatter(column: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        padded = np.zeros((len(samples) * n_steps, width), np.int64)
        padded[group, rank] = column
        return torch.from_numpy(padded.reshape(len(samples), n_steps, width))

    count_BS = torch.from_numpy(counts.reshape(len(samples), n_steps))
    return EventBatch(
        unit_BSE=scatter(unit),
        phase_BSE=scatter(phase),
        value_BSE=scatter(value),
        mask_BSE=torch.arange(width) < count_BS[..., None],
        count_BS=count_BS,
        first_step_B=torch.as_tensor(
            np.zeros(len(samples), np.int64)
            if first_step is None
            else np.asarray(first_step, np.int64)
        ),
    )
