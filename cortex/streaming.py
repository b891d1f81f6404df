"""The decoder one step at a time, over many streams.

What past events give to a step, and the keys and values of past latents, never change, so a stream
keeps them and computes one step's latents at a time. Outputs equal Model.forward over the whole
session, to rounding.

Shapes: B streams, P slots, L latents a step, D width, H heads of width K, W steps of the window,
R steps of the readout, J steps of events that a step sees, N kinds of movement.
"""

import torch
from torch import Tensor

from cortex.event_batch import EventBatch
from cortex.model import Model, VelocityQuery
from cortex.page_pool import PagePool
from kernels.linear_add import Rows
from kernels.movement_velocity import advance_movement_velocity
from kernels.step_attention import advance_step_attention
from kernels.stream_plan import StepPlan, plan_step
from kernels.turn import Turn


class StreamCache:
    """The state of every stream, and how far each has come. A stream begins with `reset`."""

    def __init__(self, model: Model, slots: int, query_phase_Q: Tensor) -> None:
        """Room for streams.

        Args:
            model: the model, on its device.
            slots: streams P.
            query_phase_Q: bins of a step that are decoded.
        """
        config = model.config
        like = model.velocity_query_D.detach()
        self.model = model.prepare()
        self.slots = slots
        with torch.no_grad():
            self._query: VelocityQuery = model.velocity_query(query_phase_Q)
        self._period_K2 = model.rotary.periods(like.device)
        # What the events so far give to the steps that will see them; no event is kept.
        self._event_sums_PJHLK = torch.zeros(
            (slots, config.event_steps, *model.cross.sum_shape), device=like.device
        )
        self._said_PJN = torch.zeros(
            (slots, config.event_steps, config.movements), device=like.device
        )
        shape = (config.latents_per_step, config.heads, config.dim // config.heads)
        window, readout = config.grid.window_steps, config.readout_steps
        self._blocks = [PagePool(slots * window, shape, like) for _ in model.blocks]
        self._readout = PagePool(slots * readout, shape, like)
        # A stream's start is its first step here.
        self._first_step = torch.zeros(slots, dtype=torch.int64, device=like.device)
        self._next_step = torch.zeros(slots, dtype=torch.int64, device=like.device)

    @torch.no_grad()
    def reset(self, slot_B: Tensor, first_step_B: Tensor) -> None:
        """Makes B distinct slots empty streams whose first steps have the numbers given."""
        self._first_step[slot_B] = self._next_step[slot_B] = first_step_B - 1
        self._event_sums_PJHLK[slot_B] = 0
        self._said_PJN[slot_B] = 0
        start_BLD = self.model.start_LD.expand(len(slot_B), -1, -1).contiguous()
        self._advance(self._plan(slot_B), Rows(start_BLD, None))

    def step(self, slot_B: Tensor, batch: EventBatch) -> Tensor:
        """Advances each of B distinct slots by one step.

        Args:
            slot_B: slots to advance.
            batch: the step's events, S = 1.

        Returns:
            Velocity (B, Q, 2).
        """
        model = self.model
        plan = self._plan(slot_B)
        x_BLD = model.cross.step(self._event_sums_PJHLK, slot_B, plan.step_B, batch)
        read_BQHK = self._advance(plan, x_BLD)
        return advance_movement_velocity(
            model.velocity.add(self._query.vector_QD, read_BQHK),
            model.velocity_head(),
            None if model.evidence is None else model.evidence.tables(),
            self._said_PJN,
            slot_B,
            plan.step_B,
            plan.first_B,
            batch.columns(),
        )

    def _plan(self, slot_B: Tensor) -> StepPlan:
        config = self.model.config
        return plan_step(
            slot_B,
            self._next_step,
            self._first_step,
            self._query.bin_Q,
            bins_per_step=config.grid.bins_per_step,
            window=config.grid.window_steps,
            readout=config.readout_steps,
            period_K2=self._period_K2,
        )

    def _advance(self, plan: StepPlan, x_BLD: Rows) -> Tensor:
        """Takes a step's latents through all blocks; returns what the queries read (B, Q, H, K)."""
        model = self.model
        turn = self._turn(plan, 2 * model.config.dim)
        x = x_BLD
        for block, pool in zip(model.latent_blocks(), self._blocks, strict=True):
            q, k, v = block.qkv(x, turn)
            read = advance_step_attention(
                q,
                k,
                v,
                pool.k,
                pool.v,
                plan.own_B,
                plan.seen_BW,
                out_scale=block.out.in_scale,
            )
            x = block.finish(x, read)
        k, v = model.velocity.keys_values(x, self._turn(plan, model.config.dim))
        return advance_step_attention(
            self._query.q_QHK.expand(len(k), -1, -1, -1),
            k,
            v,
            self._readout.k,
            self._readout.v,
            plan.readout_own_B,
            plan.readout_seen_BR,
            q_phases=(plan.query_cos_BQK2, plan.query_sin_BQK2),
            out_scale=model.velocity.out.in_scale,
        )

    def _turn(self, plan: StepPlan, columns: int) -> Turn:
        """How the leading columns of the step's latents turn."""
        rows = self.model.config.latents_per_step
        return Turn(plan.cos_BK2, plan.sin_BK2, rows=rows, columns=columns)
