"""The decoder: a Perceiver of spike events that is causal in steps.

Shapes: B samples, S steps, E events a step, L latents a step, D width, H heads of width K, Q
queries a step, N kinds of movement.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cortex.cross_attention import CrossAttention
from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.evidence import Evidence
from cortex.latent_block import LatentBlock
from cortex.latent_rotary import LatentRotary
from cortex.model_config import ModelConfig
from cortex.norm_linear import NORM_EPS, NormLinear
from cortex.quantization import Quantization
from cortex.readout import Readout
from kernels.linear_add import Rows
from kernels.movement_velocity import VelocityHead, movement_velocity
from kernels.rotary import rotate
from kernels.turn import Turn
from kernels.window_attention import KeysValues, window_attention


@dataclass(frozen=True, kw_only=True)
class VelocityQuery:
    """What asks for the velocity at Q bins of every step.

    Attributes:
        bin_Q: the bins within a step.
        vector_QD: query vectors.
        q_QHK: the vectors as the readout's queries, not turned.
        q_SQHK: the same, turned to each step of a session.
    """

    bin_Q: Tensor
    vector_QD: Tensor
    q_QHK: Tensor
    q_SQHK: Tensor


class Start(NamedTuple):
    """What comes before a session's first step; the same for all sessions.

    Attributes:
        blocks: what every block's latents of the start are seen by.
        velocity: what the velocity readout sees of it.
        x_11LD: its latents after all blocks.
    """

    blocks: list[KeysValues]
    velocity: KeysValues
    x_11LD: Rows


class Latents(NamedTuple):
    """A session's latents after all blocks.

    Attributes:
        x_BSLD: those of its steps, or of the last ones alone.
        start: what came before them.
    """

    x_BSLD: Rows
    start: Start


class Model(DecoderModule):
    """Events to hand velocity, and to the counts that training hid.

    A stream begins with a start: one step of learned latents before its first, which tells the
    steps that still have it in their window how long ago that was. It sees no events.

    `forward` is the offline form, over any number of steps; cortex.streaming has the form that
    advances one step at a time and gives the same outputs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.rotary = LatentRotary(config)
        self.cross = CrossAttention(config)
        self.start_LD = nn.Parameter(torch.randn(config.latents_per_step, config.dim) * 0.1)
        self.blocks = nn.ModuleList(LatentBlock(config) for _ in range(config.blocks))
        self.velocity_query_D = nn.Parameter(torch.randn(config.dim) * 0.1)
        self.query_phase = nn.Embedding(config.grid.bins_per_step, config.dim)
        nn.init.normal_(self.query_phase.weight, std=0.02)
        self.velocity = Readout(config, 2 * config.movements)
        self.evidence = Evidence(config) if config.movements > 1 else None
        self.masked_query: nn.Linear | None = nn.Linear(config.dim, config.dim)
        self.masked_spikes: Readout | None = Readout(config, config.max_count + 1)
        # Set where layers have been put into int8.
        self.quantization: Quantization | None = None
        self._start: Start | None = None

    @property
    def shape(self) -> ModelConfig:
        """Units and time grid: the configuration."""
        return self.config

    def forward(self, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2), in the labels' unit, at Q bins of every step."""
        return self.decode(batch, self.velocity_query(query_phase_Q, batch.unit_BSE.shape[1]))

    def velocity_query(self, query_phase_Q: Tensor, n_steps: int | None = None) -> VelocityQuery:
        """A query for sessions of up to S steps; by default, for windows."""
        vector_QD = self.velocity_query_D + self.query_phase(query_phase_Q)
        q_QHK = self.velocity.queries(vector_QD)
        n_steps = n_steps or self.config.grid.window_steps
        step_S = torch.arange(1, n_steps + 1, device=query_phase_Q.device)
        time_bin_SQ = step_S[:, None] * self.config.grid.bins_per_step + query_phase_Q
        return VelocityQuery(
            bin_Q=query_phase_Q,
            vector_QD=vector_QD,
            q_QHK=q_QHK,
            q_SQHK=rotate(q_QHK.expand(n_steps, -1, -1, -1), self.rotary.at(time_bin_SQ)),
        )

    def decode(self, batch: EventBatch, query: VelocityQuery, last: int | None = None) -> Tensor:
        """As `forward`, with a query that was made before, and for the last steps only.

        Args:
            batch: the events.
            query: what to ask.
            last: steps to decode, from the end, at most S; by default all.

        Returns:
            Velocity (B, last, Q, 2).
        """
        n_steps = batch.unit_BSE.shape[1]
        # The first of them reads the latents of some steps before.
        seen = n_steps if last is None else min(last + self.config.readout_steps - 1, n_steps)
        x_BSQD = self.read_velocity(self.encode(batch, seen), query, n_steps, last)
        evidence = None if self.evidence is None else self.evidence.tables()
        return movement_velocity(x_BSQD, self.velocity_head(), evidence, batch.columns())

    def encode(self, batch: EventBatch, last: int | None = None) -> Latents:
        """Latents of every step, or of the last ones alone."""
        start = self._start or self.start()
        x: Rows = self.cross(batch)
        turn = self.rotary.turn(batch.unit_BSE.shape[1], 2 * self.config.dim)
        *blocks, final = zip(self.latent_blocks(), start.blocks, strict=True)
        for block, before in blocks:
            x = block(x, turn, before)
        block, before = final
        return Latents(block(x, turn, before, last), start)

    def start(self) -> Start:
        """What comes before the first step, from the parameters as they are."""
        x = Rows(self.start_LD[None, None])
        seen_by = []
        for block in self.latent_blocks():
            x, keys_values = block.begin(x)
            seen_by.append(keys_values)
        return Start(seen_by, self.velocity.begin(x), x)

    def read_velocity(
        self,
        latents: Latents,
        query: VelocityQuery,
        n_steps: int | None = None,
        last: int | None = None,
    ) -> Tensor:
        """(B, S, Q, D) what queries at every step read from latents.

        Args:
            latents: from `encode`.
            query: what to ask.
            n_steps: steps of the session, if the latents are of the last ones alone.
            last: steps to ask at, from the end; by default all.
        """
        x_BSLD, start = latents
        n_batch, seen = x_BSLD.x.shape[:2]
        n_steps = n_steps or seen
        q_SQHK = query.q_SQHK[n_steps - (last or seen) : n_steps]
        q_BSQHK = q_SQHK.expand(n_batch, -1, -1, -1, -1)
        turn = self.rotary.turn(n_steps, self.config.dim, seen)
        # Steps that are not the first ones are asked too late to see a start.
        read = self._read(self.velocity, x_BSLD, start.velocity, q_BSQHK, turn)
        return self.velocity.add(query.vector_QD, read)

    def velocity_head(self) -> VelocityHead:
        """From what a query read to velocity in the labels' unit."""
        head = self.velocity
        return VelocityHead(
            head.output_norm.weight,
            head.outputs.weight,
            head.outputs.bias,
            NORM_EPS,
            self.velocity_mean,
            self.velocity_scale,
        )

    def count_logits(self, latents: Latents, unit_BSQ: Tensor) -> Tensor:
        """Logits (B, S, Q, max_count + 1) of Q units' spikes in a step; the last is for more.

        Raises:
            ValueError: the model is without its head for them.
        """
        if self.masked_query is None or self.masked_spikes is None:
            raise ValueError("the model has dropped its head for masked spikes")
        query = self.masked_query(self.cross.tokenizer.unit(unit_BSQ))
        head = self.masked_spikes
        phases = tuple(phase[:, None] for phase in self.rotary.steps(query.shape[1]))
        q_BSQHK = rotate(head.queries(query), phases)  # type: ignore[arg-type]
        turn = self.rotary.turn(query.shape[1], self.config.dim)
        x_BSLD, start = latents
        read = self._read(head, x_BSLD, head.begin(start.x_11LD), q_BSQHK, turn)
        return head.project(head.add(query, read))

    @torch.no_grad()
    def prepare(self) -> "Model":
        """Keeps what only the weights decide, once they and the device are final.

        `train` forgets it.
        """
        self.cross.prepare()
        for module in self.modules():
            if isinstance(module, NormLinear):
                module.prepare()
        self._start = self.start()
        return self

    def train(self, mode: bool = True) -> "Model":
        """As for any module."""
        self._start = None
        return super().train(mode)

    def drop_masked_spikes(self) -> None:
        """Drops the head for masked spikes, which is for training alone."""
        self.masked_query = self.masked_spikes = None

    def latent_blocks(self) -> list[LatentBlock]:
        """The blocks, in order."""
        return list(self.blocks)  # type: ignore[arg-type]

    def _read(
        self, head: Readout, x_BSLD: Rows, start: KeysValues, q_BSQHK: Tensor, turn: Turn
    ) -> Tensor:
        k, v = head.keys_values(x_BSLD, turn)
        window, out_scale = self.config.readout_steps, head.out.in_scale
        return window_attention(q_BSQHK, k, v, window=window, start=start, out_scale=out_scale)
