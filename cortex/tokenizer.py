"""Spike events to tokens."""

import torch
from torch import Tensor, nn

from cortex.model_config import ModelConfig
from kernels.token_embedding import token_embedding

NORM_EPS = 1e-6


class Tokenizer(nn.Module):
    """token = unit embedding + embedding of the bin's phase in its step + embedding of the count.

    Nothing in a token depends on where a window starts, so a token never changes once it is made.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.max_count = config.max_count
        self.unit = nn.Embedding(config.n_units, config.dim)
        self.phase = nn.Embedding(config.grid.bins_per_step, config.dim)
        # Bucket 0 stands for a hidden count's answer "none"; as an input it never occurs.
        self.value = nn.Embedding(config.max_count + 1, config.dim)
        # Units start almost alike: what sets one apart is learnt, and a unit that hardly fires
        # stays ordinary. All are small, so that an optimiser's step turns a token noticeably; the
        # norm sets the scale.
        for table, sd in ((self.unit, 0.005), (self.phase, 0.01), (self.value, 0.05)):
            nn.init.normal_(table.weight, std=sd)
        self.norm = nn.RMSNorm(config.dim, eps=NORM_EPS)

    @property
    def places(self) -> tuple[int, int]:
        """How many phases there are, and how many values."""
        return self.phase.num_embeddings, self.value.num_embeddings

    @property
    def n_rows(self) -> int:
        """How many different tokens there are."""
        return self.unit.num_embeddings * self.phase.num_embeddings * self.value.num_embeddings

    def all_tokens(self) -> tuple[Tensor, Tensor]:
        """Every token (rows, D) in the order of kernels.event_attention, and its phase (rows,)."""
        row = torch.arange(self.n_rows, device=self.unit.weight.device)
        place, value = row // self.value.num_embeddings, row % self.value.num_embeddings
        unit, phase = place // self.phase.num_embeddings, place % self.phase.num_embeddings
        return self(unit, phase, value), phase

    def forward(self, unit: Tensor, phase: Tensor, value: Tensor) -> Tensor:
        """Columns of one shape (...) to normalised tokens (..., D)."""
        gain = self.norm.weight
        # Tables in int8 come as float32.
        unit_table, phase_table, value_table = (
            table.weight.to(gain.dtype) for table in (self.unit, self.phase, self.value)
        )
        return token_embedding(
            unit,
            phase,
            value.clamp(0, self.max_count),
            (unit_table, phase_table, value_table),
            gain,
            NORM_EPS,
        )
