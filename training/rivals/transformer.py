"""A causal Transformer on binned counts: one token a step.

Source: Vaswani et al. 2017, arXiv:1706.03762, in its pre-norm form; on neural populations,
Ye and Pandarinath 2021, doi:10.51628/001c.27358.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.time_grid import TimeGrid
from training.rivals.step_counts import root_counts


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The network's shape.

    Attributes:
        n_units: size of the unit vocabulary.
        grid: the time grid.
        width: of the tokens.
        layers: encoder layers.
        heads: attention heads.
        dropout: of inputs, attention and residual updates.
        longest: steps that have a position of their own; later ones share the last.
    """

    n_units: int
    grid: TimeGrid
    width: int = 256
    layers: int = 6
    heads: int = 4
    dropout: float = 0.2
    longest: int = 512


class Transformer(DecoderModule):
    """Root counts of each step, causal self-attention, the velocities of the step's bins."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.embed = nn.Linear(config.n_units, config.width)
        self.position = nn.Parameter(torch.randn(config.longest, config.width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                4 * config.width,
                config.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.velocity = nn.Linear(config.width, 2 * config.grid.bins_per_step)

    @property
    def shape(self) -> TransformerConfig:
        """Units and time grid: the configuration."""
        return self.config

    def forward(self, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2), in the labels' unit, at Q bins of every step."""
        counts = root_counts(batch, self.config.n_units)
        step = torch.arange(counts.shape[1], device=counts.device)
        x = self.embed(self.dropout(counts))
        x = x + self.position[step.clamp(max=self.config.longest - 1)]
        window = self.config.grid.window_steps
        ahead = step[None, :] - step[:, None]
        mask = (ahead > 0) | (ahead <= -window)
        for block in self.blocks:
            x = block(x, src_mask=mask)
        outputs = self.velocity(self.norm(x)).unflatten(-1, (-1, 2))
        return self.denormalise(outputs[:, :, query_phase_Q])
