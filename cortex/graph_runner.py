"""Runs batches on a GPU: one copy in, one CUDA graph, and no waiting.

While one batch is computed, the next is filled into pinned memory and copied on a stream of its
own. So there are two of everything that a batch passes through, each with its graph. The graph also
finds out what step each event belongs to, and brings the velocities back.

The host's time counts, as a batch of few streams takes the GPU but a fraction of a millisecond: it
does no work an event, and makes few calls a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cortex.event_batch import EventBatch
from cortex.ragged_events import RaggedEvents
from cortex.staged_batch import BatchShape, BatchWriter, StagedBatch, staged_bytes
from kernels.cuda_graph import capture
from kernels.event_placement import place_events

# Batches that may have been launched and not have ended.
STAGES = 2
# Room for so many events a step at least: so that there are few shapes.
LEAST_EVENTS = 16

# (B, 2) velocities of streams' slots (B,) and their events.
Work = Callable[[Tensor, EventBatch], Tensor]


class Launched:
    """A batch under way on the GPU."""

    def __init__(self, ended: torch.cuda.Event, velocity_B2: npt.NDArray[np.float32]) -> None:
        """Args: what the GPU records when the velocities are there, and where they will be."""
        self._ended = ended
        self._velocity_B2 = velocity_B2

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        ended: bool = self._ended.query()
        return ended

    def wait(self) -> npt.NDArray[np.float32]:
        """(B, 2) velocities, or the device's error. Lets other threads run meanwhile."""
        self._ended.synchronize()
        return self._velocity_B2.copy()


@dataclass(frozen=True)
class _Passage:
    """What batches of one shape pass through, one at a time.

    Attributes:
        host: where a batch is filled in, pinned.
        device: where it is copied to.
        graph: reads it there, and writes `velocity_B2`.
        velocity_B2: pinned.
    """

    host: Tensor
    device: Tensor
    graph: torch.cuda.CUDAGraph
    writer: BatchWriter
    velocity_B2: npt.NDArray[np.float32]


class _Stage:
    """One of the two sets of passages."""

    def __init__(self) -> None:
        self.passages: dict[BatchShape, _Passage] = {}
        self.copied, self.ended = torch.cuda.Event(), torch.cuda.Event()


class GraphRunner:
    """Runs one function of batches, in the thread that makes the calls."""

    def __init__(
        self,
        work: Work,
        *,
        n_steps: int,
        bins_per_step: int,
        spare_slot: int,
        device: torch.device,
        pool: object,
    ) -> None:
        """Captures nothing yet.

        Args:
            work: what to run on the GPU. It does the same whatever its inputs hold, without waiting
                for the device.
            n_steps: steps S of a batch.
            bins_per_step: bins in a step.
            spare_slot: the slot of rows that only fill a batch up, and of rehearsals.
            device: the GPU.
            pool: memory of graphs that never run at the same time.
        """
        self._work = work
        self._n_steps = n_steps
        self._bins_per_step = bins_per_step
        self._spare_slot = spare_slot
        self._device = device
        self._pool = pool
        self._copies = torch.cuda.Stream(device)
        self._stages = [_Stage() for _ in range(STAGES)]
        self._launches = 0

    def launch(self, events: RaggedEvents, slot_B: npt.NDArray[np.int64]) -> Launched:
        """Begins a batch; at most STAGES may be under way.

        Args:
            events: valid events in time order.
            slot_B: the rows' slots; empty where rows are windows.
        """
        room = max(events.widest, LEAST_EVENTS * self._n_steps)
        shape = BatchShape.holding(len(events), room)
        stage = self._stages[self._launches % STAGES]
        passage = stage.passages.get(shape) or self._make(shape, stage)
        self._launches += 1
        # To wait for what has ended would still hand the interpreter to another thread.
        if not stage.ended.query():
            stage.ended.synchronize()
        passage.writer.write(events, slot_B, self._spare_slot)
        with torch.cuda.stream(self._copies):
            passage.device.copy_(passage.host, non_blocking=True)
        stage.copied.record(self._copies)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_event(stage.copied)
        passage.graph.replay()
        stage.ended.record(compute)
        return Launched(stage.ended, passage.velocity_B2[: len(events)])

    def _make(self, shape: BatchShape, wanted: _Stage) -> _Passage:
        """Captures a shape's graphs for all stages, on rows without events, all of the spare slot.

        No stream may take part in a rehearsal.
        """
        for number, stage in enumerate(self._stages):
            stage.passages[shape] = self._passage(shape, warm_ups=1 - number)
        return wanted.passages[shape]

    def _passage(self, shape: BatchShape, *, warm_ups: int) -> _Passage:
        n_bytes = staged_bytes(shape)
        host = torch.zeros(n_bytes, dtype=torch.uint8, pin_memory=True)
        device = torch.zeros(n_bytes, dtype=torch.uint8, device=self._device)
        velocity_B2 = torch.zeros((shape.rows, 2), pin_memory=True)
        batch = StagedBatch.in_buffer(device, shape)
        batch.slot_B.fill_(self._spare_slot)
        graph = capture(
            lambda: velocity_B2.copy_(self._run(batch, shape), non_blocking=True),
            pool=self._pool,
            warm_ups=warm_ups,
        )
        return _Passage(
            host=host,
            device=device,
            graph=graph,
            writer=BatchWriter(StagedBatch.in_buffer(host, shape)),
            velocity_B2=velocity_B2.numpy(),
        )

    def _run(self, batch: StagedBatch, shape: BatchShape) -> Tensor:
        columns = place_events(
            batch.events,
            steps=self._n_steps,
            bins_per_step=self._bins_per_step,
            places=shape.events,
        )
        return self._work(batch.slot_B, EventBatch.of(columns))
