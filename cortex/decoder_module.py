"""What every network that decodes velocity offers to training and evaluation."""

from typing import Protocol

import torch
from torch import Tensor, nn

from cortex.event_batch import EventBatch
from cortex.time_grid import TimeGrid


class DecoderConfig(Protocol):
    """The part of a network's configuration that others read."""

    @property
    def n_units(self) -> int:
        """Size of the unit vocabulary."""

    @property
    def grid(self) -> TimeGrid:
        """The time grid."""


class DecoderModule(nn.Module):
    """Events to velocity, causal in steps.

    Attributes:
        velocity_mean: (2,) mean of the training labels.
        velocity_scale: (2,) their standard deviation, so that the network itself works on
            standardised velocities.
    """

    velocity_mean: Tensor
    velocity_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("velocity_mean", torch.zeros(2))
        self.register_buffer("velocity_scale", torch.ones(2))

    @property
    def shape(self) -> DecoderConfig:
        """Units and time grid that the network was made for."""
        raise NotImplementedError

    def forward(self, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2), in the labels' unit, at Q bins of every step."""
        raise NotImplementedError

    def denormalise(self, outputs: Tensor) -> Tensor:
        """Standardised outputs (..., 2) in the labels' unit."""
        return outputs.float() * self.velocity_scale + self.velocity_mean
