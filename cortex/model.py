"""The decoder: a Perceiver of spike events that is causal in steps.

Shapes: B samples, S steps, T = S + 1 steps with the start before them, E events a step, L latents
a step, D width, Q queries a step, N kinds of movement.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cortex.cross_attention import CrossAttention, step_numbers
from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.evidence import Evidence
from cortex.latent_block import LatentBlock
from cortex.latent_rotary import latent_phases
from cortex.model_config import ModelConfig
from cortex.movements import mixed_velocity
from cortex.norm_linear import NormLinear
from cortex.readout import Readout
from kernels.window_attention import rotary_window_attention


class Model(DecoderModule):
    """Events to hand velocity, and to the counts that training hid.

    A stream begins with a start: one step of learned latents before its first, which tells the
    steps that still have it in their window how long ago that was.

    `forward` is the offline form, over any number of steps; cortex.streaming has the form that
    advances one step at a time and gives the same outputs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.cross = CrossAttention(config)
        self.start_LD = nn.Parameter(torch.randn(config.latents_per_step, config.dim) * 0.1)
        self.blocks = nn.ModuleList(LatentBlock(config) for _ in range(config.blocks))
        self.velocity_query_D = nn.Parameter(torch.randn(config.dim) * 0.1)
        self.query_phase = nn.Embedding(config.grid.bins_per_step, config.dim)
        nn.init.normal_(self.query_phase.weight, std=0.02)
        self.velocity = Readout(config, 2 * config.movements)
        self.evidence = Evidence(config) if config.movements > 1 else None
        self.masked_query = nn.Linear(config.dim, config.dim)
        self.masked_spikes = Readout(config, config.max_count + 1)

    @property
    def shape(self) -> ModelConfig:
        """Units and time grid: the configuration."""
        return self.config

    def encode(self, batch: EventBatch) -> Tensor:
        """Latents (B, T, L, D) of the start and of every step."""
        x_BSLD: Tensor = self.cross(batch)
        start = self.start_LD.to(x_BSLD.dtype).expand(len(x_BSLD), 1, -1, -1)
        x = torch.cat((start, x_BSLD), 1)
        phases = self.step_phases(_with_start(step_numbers(batch)))
        for block in self.latent_blocks():
            x = block(x, phases)
        return x

    def forward(self, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2), in the labels' unit, at Q bins of every step."""
        velocity = self.read_velocity(self.encode(batch), step_numbers(batch), query_phase_Q)
        return self.velocity_of(velocity, self.movement_logits(batch))

    def read_velocity(self, x_BTLD: Tensor, step_BS: Tensor, query_phase_Q: Tensor) -> Tensor:
        """Standardised velocity (B, S, Q, N, 2) of every kind of movement.

        Args:
            x_BTLD: latents from `encode`.
            step_BS: numbers of the steps.
            query_phase_Q: bins (Q,) of each step.
        """
        query_QD = self.velocity_query(query_phase_Q)
        step_BT = _with_start(step_BS)
        # The same at every step, so projected once.
        query, q = (
            x.expand(*step_BT.shape, *x.shape) for x in (query_QD, self.velocity.queries(query_QD))
        )
        phases = self.query_phases(step_BT, query_phase_Q)
        return self.by_movement(self._read(self.velocity, x_BTLD, step_BT, query, q, phases))

    def by_movement(self, outputs: Tensor) -> Tensor:
        """Velocity (..., N, 2) from the velocity readout's outputs (..., 2 N)."""
        velocity: Tensor = outputs.float().unflatten(-1, (self.config.movements, 2))
        return velocity

    def movement_logits(self, batch: EventBatch) -> Tensor | None:
        """Logits (B, S, N) of the kinds of movement at every step; None where there is one kind."""
        if self.evidence is None:
            return None
        logits: Tensor = self.evidence(batch)
        return logits

    def velocity_of(self, velocity_SQN2: Tensor, logits_SN: Tensor | None) -> Tensor:
        """Velocity (..., Q, 2), in the labels' unit, from each kind's and the kinds' logits."""
        if logits_SN is None:
            return self.denormalise(velocity_SQN2.squeeze(-2))
        return self.denormalise(mixed_velocity(velocity_SQN2, logits_SN))

    def count_logits(self, x_BTLD: Tensor, step_BS: Tensor, unit_BSQ: Tensor) -> Tensor:
        """Logits (B, S, Q, max_count + 1) of Q units' spikes in a step; the last is for more."""
        # Nothing is asked at the start; a query of zeros keeps the steps aligned.
        query = F.pad(self.masked_query(self.cross.tokenizer.unit(unit_BSQ)), (0, 0, 0, 0, 1, 0))
        step_BT = _with_start(step_BS)
        head = self.masked_spikes
        phases = self.step_phases(step_BT)
        return self._read(head, x_BTLD, step_BT, query, head.queries(query), phases)

    def velocity_query(self, query_phase_Q: Tensor) -> Tensor:
        """Query vectors (Q, D) of bins of a step, the same at every step."""
        return self.velocity_query_D + self.query_phase(query_phase_Q)  # type: ignore[no-any-return]

    def query_phases(self, step_BS: Tensor, query_phase_Q: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary phases (B, S, Q, K / 2) of queries at Q bins of every step."""
        time_bin = step_BS[:, :, None] * self.config.grid.bins_per_step + query_phase_Q
        return latent_phases(self.config, time_bin)

    def step_phases(self, step_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary phases (B, S, 1, K / 2) of every step's latents."""
        time_bin = step_BS[:, :, None] * self.config.grid.bins_per_step
        return latent_phases(self.config, time_bin)

    def prepare(self) -> "Model":
        """Precomputes what only the weights decide; call it once they and the device are final."""
        self.cross.prepare()
        for module in self.modules():
            if isinstance(module, NormLinear):
                module.prepare()
        return self

    def latent_blocks(self) -> list[LatentBlock]:
        """The blocks, in order."""
        return list(self.blocks)  # type: ignore[arg-type]

    def _read(
        self,
        head: Readout,
        x_BTLD: Tensor,
        step_BT: Tensor,
        query_BTQD: Tensor,
        q_BTQHK: Tensor,
        query_phases: tuple[Tensor, Tensor],
    ) -> Tensor:
        k, v = head.keys_values(x_BTLD)
        read = rotary_window_attention(
            q_BTQHK,
            k,
            v,
            query_phases,
            self.step_phases(step_BT),
            window=self.config.readout_steps,
        )
        return head.finish(query_BTQD[:, 1:], read[:, 1:])


def _with_start(step_BS: Tensor) -> Tensor:
    """(B, T) the same steps' numbers with the start's in front."""
    return torch.cat((step_BS[:, :1] - 1, step_BS), 1)
