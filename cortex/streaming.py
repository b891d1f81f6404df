"""The decoder one step at a time, over many streams.

What past events give to a step, and the keys and values of past latents, never change, so a stream
keeps them and computes one step's latents at a time. Outputs equal Model.forward over the whole
session, to rounding.
"""

import torch
from torch import Tensor

from cortex.event_batch import EventBatch
from cortex.evidence import Evidence
from cortex.model import Model
from cortex.step_pages import PagePool, StepPages
from kernels.rotary import rotate
from kernels.step_attention import advance_step_attention, paged_step_attention


class EvidenceSums:
    """What the spikes of the last steps of every slot say of its kind of movement."""

    def __init__(self, evidence: Evidence, slots: int) -> None:
        self._evidence = evidence
        # What the step numbered n says is at index n % steps.
        self._sums = evidence.bias_N.detach().new_zeros(
            (slots, evidence.steps, len(evidence.bias_N)), dtype=torch.float32
        )

    def reset(self, slot_B: Tensor) -> None:
        """Forgets the slots' spikes."""
        self._sums[slot_B] = 0

    def add(self, slot_B: Tensor, step_B: Tensor, steps_B: Tensor, batch: EventBatch) -> Tensor:
        """Adds one step's spikes; returns its logits (B, 1, N), with steps_B steps done."""
        said_BN = self._evidence.step_sums(batch)[:, 0]
        self._sums[slot_B, step_B % self._evidence.steps] = said_BN
        return self._evidence.logits(self._sums[slot_B].sum(1), steps_B)[:, None]


class StreamCache:
    """The state of every stream, and how far each has come. A stream begins with `reset`."""

    def __init__(self, model: Model, slots: int) -> None:
        config = model.config
        like = model.velocity_query_D.detach()
        self.model = model.prepare()
        self.slots = slots
        shape = (config.latents_per_step, config.heads, config.dim // config.heads)
        # What the events so far give to the steps that will see them; no event is kept.
        self.event_sums_PJHLK = torch.zeros(
            (slots, config.event_steps, *model.cross.sum_shape), device=like.device
        )
        self.evidence = EvidenceSums(model.evidence, slots) if model.evidence else None
        self.window = StepPages(config.grid.window_steps, like.device)
        self.blocks = [PagePool(slots * self.window.depth, shape, like) for _ in model.blocks]
        self.readout_window = StepPages(config.readout_steps, like.device)
        self.readout = PagePool(slots * self.readout_window.depth, shape, like)
        self.first_step = torch.zeros(slots, dtype=torch.int64, device=like.device)
        self.next_step = torch.zeros(slots, dtype=torch.int64, device=like.device)

    @torch.no_grad()
    def reset(self, *slots: int, first_step: int | Tensor = 0) -> None:
        """Makes slots empty streams whose first step has the number given, one or (B,)."""
        slot_B = torch.tensor(slots, device=self.next_step.device)
        self.first_step[slot_B] = self.next_step[slot_B] = first_step - 1
        self.event_sums_PJHLK[slot_B] = 0
        if self.evidence:
            self.evidence.reset(slot_B)
        self._advance(slot_B, self.model.start_LD.expand(len(slots), -1, -1))

    def step(self, slot_B: Tensor, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Advances each of B distinct slots by one step.

        Args:
            slot_B: slots to advance.
            batch: the step's events, S = 1; first_step_B is not used.
            query_phase_Q: bins of the step to decode.

        Returns:
            Velocity (B, Q, 2).
        """
        model = self.model
        step_B, first_B = self.next_step[slot_B], self.first_step[slot_B]
        self._advance(slot_B, model.cross.step(self.event_sums_PJHLK, slot_B, step_B, batch))
        query_QD = model.velocity_query(query_phase_Q)
        phases = model.query_phases(step_B[:, None], query_phase_Q)
        read = paged_step_attention(
            rotate(model.velocity.queries(query_QD).expand(len(slot_B), -1, -1, -1), _one(phases)),
            self.readout.k,
            self.readout.v,
            self.readout_window.seen(slot_B, step_B, first_B),
        )
        velocity = model.by_movement(model.velocity.finish(query_QD, read))
        if self.evidence is None:
            return model.velocity_of(velocity, None)
        # The start is the first step of the cache, and counts no spikes.
        logits = self.evidence.add(slot_B, step_B, step_B - first_B, batch)
        return model.velocity_of(velocity[:, None], logits)[:, 0]

    def _advance(self, slot_B: Tensor, x_BLD: Tensor) -> None:
        """Takes one step's latents through all blocks, and caches what later steps will read."""
        step_B, first_B = self.next_step[slot_B], self.first_step[slot_B]
        phases = _one(self.model.step_phases(step_B[:, None]))
        cos_BK2, sin_BK2 = (phase[:, 0] for phase in phases)
        own_B = self.window.own(slot_B, step_B)
        seen_BW = self.window.seen(slot_B, step_B, first_B)
        x = x_BLD
        for block, pool in zip(self.model.latent_blocks(), self.blocks, strict=True):
            read = advance_step_attention(
                block.qkv(x), cos_BK2, sin_BK2, pool.k, pool.v, own_B, seen_BW
            )
            x = block.finish(x, read)
        k, v = self.model.velocity.keys_values(x)
        self.readout.write(self.readout_window.own(slot_B, step_B), rotate(k, phases), v)
        self.next_step[slot_B] = step_B + 1


def _one(phases: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, Q, K / 2) phases of the only step of (B, 1, Q, K / 2)."""
    cos, sin = (phase.squeeze(1) for phase in phases)
    return cos, sin
