"""From events to latents: each step's latents attend the events of the last few steps.

Shapes: B samples or streams, S steps, J steps of events that a step sees, L latents a step, H heads
of width K, D width, P slots.
"""

import math

import torch
from torch import Tensor, nn

from cortex.event_batch import EventBatch
from cortex.linear_add import LinearAdd
from cortex.model_config import ModelConfig
from cortex.tokenizer import Tokenizer
from kernels.event_attention import EventTables, event_reads, event_step, event_tables, pack
from kernels.linear_add import Rows
from kernels.rotary import rotary_phases, rotate


class CrossAttention(nn.Module):
    """Learned latents, the same at every step, read the recent events.

    Neither tokens nor queries depend on anything but their few indices, so all weights come from
    tables: fresh ones while the parameters may change, kept ones after `prepare`.
    """

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
        self.out = LinearAdd(config.dim, config.dim, dropout=config.dropout)
        self._prepared: EventTables | None = None

    @property
    def sum_shape(self) -> tuple[int, int, int]:
        """(H, L, K) of the sums that a step sees."""
        config = self.config
        # Softmax sums its normaliser beside the values.
        extra = 1 if config.weighting == "softmax" else 0
        return config.heads, config.latents_per_step, config.dim // config.heads + extra

    def forward(self, batch: EventBatch) -> Rows:
        """Latents (B, S, L, D) of every step of a session."""
        places, weighting = self.tokenizer.places, self.config.weighting
        return self._latents(event_reads(batch.columns(), places, self._kept(), weighting))

    def step(self, sums_PJHLK: Tensor, slot_B: Tensor, step_B: Tensor, batch: EventBatch) -> Rows:
        """Latents (B, L, D) of one step of B streams.

        Args:
            sums_PJHLK: what events so far give to the next J steps of every slot; updated.
            slot_B: distinct slots.
            step_B: the steps' numbers.
            batch: the steps' events, S = 1.
        """
        read_BHLK = event_step(
            sums_PJHLK,
            slot_B,
            step_B,
            batch.columns(),
            self.tokenizer.places,
            self._kept(),
            self.config.weighting,
        )
        return self._latents(read_BHLK)

    def _latents(self, read_HLK: Tensor) -> Rows:
        """Latents (..., L, D): what is their own, and what they read (..., H, L, K)."""
        read = read_HLK.transpose(-3, -2).flatten(-2).to(self.latents_LD.dtype)
        added: Rows = self.out(read, self.latents_LD)
        return added

    def _kept(self) -> EventTables:
        return self._prepared or self.tables()

    def tables(self) -> EventTables:
        """Weights and values of every token there is, at every lag."""
        config = self.config
        tokens, phase_R = self.tokenizer.all_tokens()
        k, v = self.kv(tokens).unflatten(-1, (2, config.heads, -1)).unbind(-3)
        # Time of the query, the end of its step, counted from the first bin of the event's step.
        lag = torch.arange(config.event_steps, device=phase_R.device)
        moment_J = (lag + 1) * config.grid.bins_per_step - 1
        q_LHK = self.q(self.norm(self.latents_LD)).unflatten(-1, (config.heads, -1))
        q = rotate(
            q_LHK.expand(config.event_steps, -1, -1, -1),
            tuple(p[:, None] for p in self._phases(moment_J)),  # type: ignore[arg-type]
        )
        k = rotate(k, self._phases(phase_R))
        return event_tables(q, k, v, self.bias_H, config.weighting)

    @torch.no_grad()
    def prepare(self) -> None:
        """Keeps the tables, once weights and device are final; `train` forgets them."""
        self._prepared = pack(self.tables(), self.latents_LD.dtype)

    def train(self, mode: bool = True) -> "CrossAttention":
        """As for any module."""
        self._prepared = None
        return super().train(mode)

    def _phases(self, time_bin: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        return rotary_phases(
            time_bin,
            config.dim // config.heads,
            min_period=4.0,
            max_period=4.0 * config.grid.bins_per_step * config.event_steps,
        )
