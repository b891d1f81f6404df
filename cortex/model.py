"""The decoder: a Perceiver of spike events that is causal in steps.

Shapes: B samples, S steps, E events a step, L latents a step, D width, Q queries a step.
"""

import torch
from torch import Tensor, nn

from cortex.cross_attention import CrossAttention, step_numbers
from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.latent_block import LatentBlock
from cortex.latent_rotary import latent_phases
from cortex.model_config import ModelConfig
from cortex.readout import Readout
from kernels.window_attention import window_attention


class Model(DecoderModule):
    """Events to hand velocity, and to the counts that training hid.

    `forward` is the offline form, over any number of steps; cortex.streaming has the form that
    advances one step at a time and gives the same outputs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.cross = CrossAttention(config)
        self.blocks = nn.ModuleList(LatentBlock(config) for _ in range(config.blocks))
        self.velocity_query_D = nn.Parameter(torch.randn(config.dim) * 0.1)
        self.query_phase = nn.Embedding(config.grid.bins_per_step, config.dim)
        nn.init.normal_(self.query_phase.weight, std=0.02)
        self.velocity = Readout(config, 2)
        self.masked_query = nn.Linear(config.dim, config.dim)
        self.masked_spikes = Readout(config, config.max_count + 1)

    @property
    def shape(self) -> ModelConfig:
        """Units and time grid: the configuration."""
        return self.config

    def encode(self, batch: EventBatch) -> Tensor:
        """Latents (B, S, L, D) of every step."""
        step_BS = step_numbers(batch)
        x: Tensor = self.cross(batch)
        phases = self.step_phases(step_BS)
        for block in self.latent_blocks():
            x = block(x, phases)
        return x

    def forward(self, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2), in the labels' unit, at Q bins of every step."""
        return self.read_velocity(self.encode(batch), step_numbers(batch), query_phase_Q)

    def read_velocity(self, x_BSLD: Tensor, step_BS: Tensor, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2) from latents, at bins query_phase_Q (Q,) of every step."""
        query, query_phases = self.velocity_queries(step_BS, query_phase_Q)
        outputs = self._read(self.velocity, x_BSLD, step_BS, query, query_phases)
        return self.denormalise(outputs)

    def count_logits(self, x_BSLD: Tensor, step_BS: Tensor, unit_BSQ: Tensor) -> Tensor:
        """Logits (B, S, Q, max_count + 1) of Q units' spikes in a step; the last is for more."""
        query = self.masked_query(self.cross.tokenizer.unit(unit_BSQ))
        return self._read(self.masked_spikes, x_BSLD, step_BS, query, self.step_phases(step_BS))

    def velocity_queries(
        self, step_BS: Tensor, query_phase_Q: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Query vectors (B, S, Q, D) and their rotary phases."""
        query = self.velocity_query_D + self.query_phase(query_phase_Q)
        time_bin = step_BS[:, :, None] * self.config.grid.bins_per_step + query_phase_Q
        return query.expand(*step_BS.shape, -1, -1), latent_phases(self.config, time_bin)

    def step_phases(self, step_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary phases (B, S, 1, K / 2) of every step's latents."""
        time_bin = step_BS[:, :, None] * self.config.grid.bins_per_step
        return latent_phases(self.config, time_bin)

    def prepare(self) -> "Model":
        """Precomputes what only the weights decide; call it once they and the device are final."""
        self.cross.prepare()
        return self

    def latent_blocks(self) -> list[LatentBlock]:
        """The blocks, in order."""
        return list(self.blocks)  # type: ignore[arg-type]

    def _read(
        self,
        head: Readout,
        x_BSLD: Tensor,
        step_BS: Tensor,
        query: Tensor,
        query_phases: tuple[Tensor, Tensor],
    ) -> Tensor:
        k, v = head.keys_values(x_BSLD, self.step_phases(step_BS))
        read = window_attention(
            head.queries(query, query_phases), k, v, window=self.config.readout_steps
        )
        return head.finish(query, read)
