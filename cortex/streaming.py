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
from kernels.step_attention import step_attention


class StepRing:
    """Keys and values of the last `depth` steps of every slot, written in place.

    Attributes:
        k: (slots, depth, ...) with the step numbered n at index n % depth.
        v: (slots, depth, ...).
    """

    def __init__(self, slots: int, depth: int, shape: tuple[int, ...], like: Tensor) -> None:
        self.depth = depth
        self.k = like.new_zeros((slots, depth, *shape))
        self.v = like.new_zeros((slots, depth, *shape))

    def write(self, slot_B: Tensor, step_B: Tensor, k: Tensor, v: Tensor) -> None:
        """Stores one step's keys and values (B, ...) of each of B slots."""
        index = step_B % self.depth
        self.k[slot_B, index] = k
        self.v[slot_B, index] = v

    def live(self, step_B: Tensor, first_B: Tensor) -> Tensor:
        """(B, depth) True where an index holds a step that this stream has written.

        Steps are written in order, so the newest step's number says what every index holds.
        """
        age = (step_B[:, None] - torch.arange(self.depth, device=step_B.device)) % self.depth
        return age <= (step_B - first_B)[:, None]


class EventSums:
    """What the events so far give to the next steps of every slot.

    Each step's events add to the sums of the steps that will see them, so no event is kept.
    """

    def __init__(self, model: Model, slots: int) -> None:
        self._cross = model.cross
        config = model.config
        shape = model.cross.sum_shape
        # The sums of the step numbered n are at index n % lags.
        self._sums = torch.zeros(
            (slots, config.event_steps, *shape), device=model.velocity_query_D.device
        )

    def reset(self, slot: int) -> None:
        """Forgets a slot's events."""
        self._sums[slot] = 0

    def add(self, slot_B: Tensor, step_B: Tensor, batch: EventBatch) -> Tensor:
        """Adds one step's events; returns the sums (B, H, L, K) that the step itself sees."""
        given_BJHLK = self._cross.step_sums(batch)[:, 0]
        lag = torch.arange(given_BJHLK.shape[1], device=step_B.device)
        index_BJ = (step_B[:, None] + lag) % len(lag)
        sums = self._sums[slot_B[:, None], index_BJ] + given_BJHLK
        # The step's own place is free for the step that comes `lags` later.
        self._sums[slot_B[:, None], index_BJ] = sums * (lag > 0)[:, None, None, None]
        return sums[:, 0]


class EvidenceSums:
    """What the spikes of the last steps of every slot say of its kind of movement."""

    def __init__(self, evidence: Evidence, slots: int) -> None:
        self._evidence = evidence
        # What the step numbered n says is at index n % steps.
        self._sums = evidence.bias_N.detach().new_zeros(
            (slots, evidence.steps, len(evidence.bias_N)), dtype=torch.float32
        )

    def reset(self, slot: int) -> None:
        """Forgets a slot's spikes."""
        self._sums[slot] = 0

    def add(self, slot_B: Tensor, step_B: Tensor, steps_B: Tensor, batch: EventBatch) -> Tensor:
        """Adds one step's spikes; returns its logits (B, 1, N), with steps_B steps done."""
        said_BN = self._evidence.step_sums(batch)[:, 0]
        self._sums[slot_B, step_B % self._evidence.steps] = said_BN
        return self._evidence.logits(self._sums[slot_B].sum(1), steps_B)[:, None]


class StreamCache:
    """The state of every stream, and how far each has come. A stream begins with `reset`."""

    def __init__(self, model: Model, slots: int) -> None:
        config = model.config
        head = (config.heads, config.dim // config.heads)
        like = model.velocity_query_D.detach()
        self.model = model.prepare()
        self.slots = slots
        latents = (config.latents_per_step, *head)
        self.events = EventSums(model, slots)
        self.evidence = EvidenceSums(model.evidence, slots) if model.evidence else None
        window = config.grid.window_steps
        self.blocks = [StepRing(slots, window, latents, like) for _ in range(config.blocks)]
        self.readout = StepRing(slots, config.readout_steps, latents, like)
        self.first_step = torch.zeros(slots, dtype=torch.int64, device=like.device)
        self.next_step = torch.zeros(slots, dtype=torch.int64, device=like.device)

    @torch.no_grad()
    def reset(self, slot: int, first_step: int = 0) -> None:
        """Makes a slot an empty stream whose first step has the number given."""
        self.first_step[slot] = self.next_step[slot] = first_step - 1
        self.events.reset(slot)
        if self.evidence:
            self.evidence.reset(slot)
        slot_B = torch.tensor([slot], device=self.next_step.device)
        self._advance(slot_B, self.model.start_LD[None, None])

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
        step_B = self.next_step[slot_B]
        x = model.cross.latents(self.events.add(slot_B, step_B, batch))
        self._advance(slot_B, x[:, None])
        query, query_phases = model.velocity_queries(step_B[:, None], query_phase_Q)
        read = step_attention(
            model.velocity.queries(query, query_phases)[:, 0],
            self.readout.k[slot_B],
            self.readout.v[slot_B],
            self.readout.live(step_B, self.first_step[slot_B]),
        )
        velocity = model.by_movement(model.velocity.finish(query[:, 0], read))
        if self.evidence is None:
            return model.velocity_of(velocity, None)
        # The start is the first step of the cache, and counts no spikes.
        done_B = step_B - self.first_step[slot_B]
        logits = self.evidence.add(slot_B, step_B, done_B, batch)
        return model.velocity_of(velocity[:, None], logits)[:, 0]

    def _advance(self, slot_B: Tensor, x_B1LD: Tensor) -> None:
        """Takes one step's latents through all blocks, and caches what later steps will read."""
        step_B, first_B = self.next_step[slot_B], self.first_step[slot_B]
        phases = self.model.step_phases(step_B[:, None])
        x = x_B1LD
        for block, ring in zip(self.model.latent_blocks(), self.blocks, strict=True):
            q, k, v = block.qkv(x, phases)
            ring.write(slot_B, step_B, k[:, 0], v[:, 0])
            read = step_attention(
                q[:, 0], ring.k[slot_B], ring.v[slot_B], ring.live(step_B, first_B)
            )
            x = block.finish(x, read[:, None])
        k, v = self.model.velocity.keys_values(x, phases)
        self.readout.write(slot_B, step_B, k[:, 0], v[:, 0])
        self.next_step[slot_B] = step_B + 1
