"""From events to latents: each step's latents attend the events of the last few steps."""

import math

import torch
from torch import Tensor, nn

from cortex.event_batch import EventBatch
from cortex.model_config import ModelConfig
from cortex.tokenizer import Tokenizer
from kernels.event_attention import event_attention
from kernels.rotary import rotary_phases, rotate


class CrossAttention(nn.Module):
    """Learned latents, the same at every step, read the recent events."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config)
        self.latents_LD = nn.Parameter(torch.randn(config.latents_per_step, config.dim) * 0.1)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.kv = nn.Linear(config.dim, 2 * config.dim, bias=False)
        # A fresh sum over some hundred events stays of order one.
        self.bias_H = nn.Parameter(torch.full((config.heads,), -math.log(32.0)))
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def _phases(self, time_bin: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        return rotary_phases(
            time_bin,
            config.dim // config.heads,
            min_period=4.0,
            max_period=4.0 * config.grid.bins_per_step * config.event_steps,
        )

    def keys_values(self, batch: EventBatch) -> tuple[Tensor, Tensor]:
        """Keys and values (B, S, E, H, K) of a batch's events; final once made."""
        tokens = self.tokenizer(batch.unit_BSE, batch.phase_BSE, batch.value_BSE)
        k, v = self.kv(tokens).unflatten(-1, (2, self.config.heads, -1)).unbind(-3)
        step = step_numbers(batch)[:, :, None]
        return rotate(k, self._phases(step * self.config.grid.bins_per_step + batch.phase_BSE)), v

    def forward(
        self, step_BS: Tensor, k_BSEHK: Tensor, v_BSEHK: Tensor, mask_BSE: Tensor, *, n_back: int
    ) -> Tensor:
        """Latents of each step.

        Args:
            step_BS: the stream's numbers of the S steps.
            k_BSEHK: event keys, by step.
            v_BSEHK: event values, by step.
            mask_BSE: True where an event is real.
            n_back: steps of k and v that each step sees.

        Returns:
            (B, S, L, D).
        """
        heads = self.config.heads
        bins = self.config.grid.bins_per_step
        q_LHK = self.q(self.norm(self.latents_LD)).unflatten(-1, (heads, -1))
        q = rotate(
            q_LHK.expand(*step_BS.shape, -1, -1, -1),
            tuple(p[:, :, None] for p in self._phases(step_BS * bins + bins - 1)),  # type: ignore[arg-type]
        )
        read = event_attention(
            q,
            k_BSEHK,
            v_BSEHK,
            mask_BSE,
            self.bias_H,
            n_back=n_back,
            weighting=self.config.weighting,
        )
        update: Tensor = self.dropout(self.out(read.flatten(-2)))
        return self.latents_LD + update


def step_numbers(batch: EventBatch) -> Tensor:
    """(B, S) the stream's numbers of a batch's steps."""
    n_steps = batch.unit_BSE.shape[1]
    return batch.first_step_B[:, None] + torch.arange(n_steps, device=batch.first_step_B.device)
