"""Trials of one or many sessions as tensors on one device, from which batches are cut.

Shapes: N trials, S steps, E events a step, P bins a step, B trials of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortex.errors import InputError
from cortex.event_batch import EventBatch, collate
from training.samples.trial_samples import TrialSample


@dataclass(frozen=True, kw_only=True)
class TrialBatch:
    """What one training step sees.

    Attributes:
        events: events of B trials, grouped by step.
        velocity_BSP2: labels; 0 where there is none.
        labelled_BSP: True where there is a label.
        inside_BS: True in steps that belong to the trial, not to padding.
        units_B2: first unit of each trial's session in the vocabulary, and one past its last.
        movement_B: kind of each trial's movement; -1 where it is not known.
    """

    events: EventBatch
    velocity_BSP2: Tensor
    labelled_BSP: Tensor
    inside_BS: Tensor
    units_B2: Tensor
    movement_B: Tensor

    def rows(self, which: slice) -> "TrialBatch":
        """Some of the trials."""
        tensors = {k: v[which] for k, v in vars(self).items() if k != "events"}
        return TrialBatch(events=self.events.rows(which), **tensors)


class TrialTensors:
    """All trials, padded to the longest and to the busiest step, so that a batch is a few gathers.

    A trial longer than `crop_steps` is seen in pieces, a random one each time.
    """

    def __init__(
        self,
        samples: Sequence[TrialSample],
        *,
        bins_per_step: int,
        crop_steps: int,
        device: str | torch.device,
    ) -> None:
        """Lays the samples out.

        Raises:
            InputError: there are none, or none has a label.
        """
        if not any(sample.labelled.any() for sample in samples):
            raise InputError(
                f"training: none of {len(samples)} trials has a velocity label, expected at least "
                "one"
            )
        n_steps = max(sample.n_steps for sample in samples)
        self.n_steps = min(n_steps, crop_steps)
        batch = collate(
            [sample.events for sample in samples], n_steps=n_steps, bins_per_step=bins_per_step
        )
        # A byte where it fits: a long recording is mostly padding.
        small = torch.uint8 if bins_per_step <= 256 else torch.int32
        self._unit_NSE = batch.unit_BSE.to(torch.int32).to(device)
        self._phase_NSE = batch.phase_BSE.to(small).to(device)
        self._value_NSE = batch.value_BSE.clamp(max=255).to(torch.uint8).to(device)
        self._count_NS = batch.count_BS.to(device)
        velocity = np.zeros((len(samples), n_steps, bins_per_step, 2), np.float32)
        labelled = np.zeros(velocity.shape[:3], np.bool_)
        for i, sample in enumerate(samples):
            velocity[i, : sample.n_steps] = sample.velocity
            labelled[i, : sample.n_steps] = sample.labelled
        self._velocity_NSP2 = torch.from_numpy(velocity).to(device)
        self._labelled_NSP = torch.from_numpy(labelled).to(device)
        self._length_N = torch.tensor([sample.n_steps for sample in samples], device=device)
        self._units_N2 = torch.tensor([sample.units for sample in samples], device=device)
        self._movement_N = torch.tensor([sample.movement for sample in samples], device=device)

    def __len__(self) -> int:
        """Trials in all."""
        return len(self._length_N)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self._length_N.device

    def label_moments(self) -> tuple[Tensor, Tensor]:
        """Mean (2,) and standard deviation (2,) of all labels."""
        labels = self._velocity_NSP2[self._labelled_NSP].double()
        return labels.mean(0).float(), labels.std(0, unbiased=False).clamp_min(1e-6).float()

    def batch(self, index_B: Tensor, start_B: Tensor) -> TrialBatch:
        """Pieces of `n_steps` steps of the trials index_B, from the steps start_B on."""
        step = start_B[:, None] + torch.arange(self.n_steps, device=self.device)
        length = self._length_N[index_B, None]
        inside = step < length
        row = index_B[:, None], step.clamp(max=self._count_NS.shape[1] - 1)
        count = self._count_NS[row] * inside
        width = self._unit_NSE.shape[2]
        mask = torch.arange(width, device=self.device) < count[:, :, None]
        return TrialBatch(
            events=EventBatch(
                unit_BSE=self._unit_NSE[row].long(),
                phase_BSE=self._phase_NSE[row].long(),
                value_BSE=self._value_NSE[row].long(),
                mask_BSE=mask,
                count_BS=count,
            ),
            velocity_BSP2=self._velocity_NSP2[row],
            labelled_BSP=self._labelled_NSP[row] & inside[:, :, None],
            inside_BS=inside,
            units_B2=self._units_N2[index_B],
            movement_B=self._movement_N[index_B],
        )

    def random_mates(self, index_B: Tensor, uniform_B: Tensor) -> Tensor:
        """Trials (B,) of the same session and kind of movement, from numbers uniform in [0, 1).

        A trial of unknown kind is its own mate.
        """
        kind_N, unit_N = self._movement_N, self._units_N2[:, 0]
        same_BN = (kind_N[index_B, None] == kind_N) & (unit_N[index_B, None] == unit_N)
        nth_B = (uniform_B * same_BN.sum(1)).long()
        mate_B = (same_BN.cumsum(1) > nth_B[:, None]).int().argmax(1)
        return torch.where(kind_N[index_B] >= 0, mate_B, index_B)

    def random_starts(self, index_B: Tensor, uniform_B: Tensor) -> Tensor:
        """First steps (B,) of random pieces, from numbers uniform in [0, 1)."""
        spare = (self._length_N[index_B] - self.n_steps).clamp_min(0)
        return (uniform_B * (spare + 1)).long()
