"""Runs batches on a GPU: one copy in, one CUDA graph a shape, one copy out, and no waiting.

While one batch is computed, the next is filled into pinned memory and copied on a stream of its
own. A graph reads its inputs where it was captured, so a batch goes from where it was copied to
there in one more copy, inside the GPU, when the graph before has ended. The graph also finds out
what step each event belongs to: the host does no work an event.

The host's time counts, as a batch of few streams takes the GPU but a fraction of a millisecond: so
all views of memory are made once.
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
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    velocity_B2: Tensor


@dataclass(frozen=True)
class _Passage:
    """Memory that a batch of one shape passes through on its way in and out, pinned on the host."""

    writer: BatchWriter
    host: Tensor
    device: Tensor
    velocity_B2: Tensor
    velocity: npt.NDArray[np.float32]


class _Stage:
    """What one batch at a time uses, of whatever shape."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.empty(0, dtype=torch.uint8)
        self._on_device = torch.empty(0, dtype=torch.uint8, device=device)
        self._velocity_B2 = torch.empty((0, 2))
        self._passages: dict[BatchShape, _Passage] = {}
        self.copied, self.ended = torch.cuda.Event(), torch.cuda.Event()

    def passage(self, shape: BatchShape) -> _Passage:
        """Where a batch goes; there must be none under way."""
        if shape not in self._passages:
            n_bytes = staged_bytes(shape)
            self._make_room(n_bytes, shape.rows)
            host, velocity_B2 = self._host[:n_bytes], self._velocity_B2[: shape.rows]
            self._passages[shape] = _Passage(
                writer=BatchWriter(StagedBatch.in_buffer(host, shape)),
                host=host,
                device=self._on_device[:n_bytes],
                velocity_B2=velocity_B2,
                velocity=velocity_B2.numpy(),
            )
        return self._passages[shape]

    def _make_room(self, n_bytes: int, rows: int) -> None:
        if len(self._host) < n_bytes:
            self._host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
            self._on_device = torch.empty(n_bytes, dtype=torch.uint8, device=self._device)
            self._passages.clear()
        if len(self._velocity_B2) < rows:
            self._velocity_B2 = torch.empty((rows, 2), pin_memory=True)
            self._passages.clear()


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
        self._graphs: dict[BatchShape, _Graph] = {}
        self._copies = torch.cuda.Stream(device)
        self._stages = [_Stage(device) for _ in range(STAGES)]
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
        self._launches += 1
        # To wait for what has ended would still hand the interpreter to another thread.
        if not stage.ended.query():
            stage.ended.synchronize()
        passage = stage.passage(shape)
        passage.writer.write(events, slot_B, self._spare_slot)
        self._start(stage, passage, self._graphs.get(shape) or self._capture(shape))
        return Launched(stage.ended, passage.velocity[: len(events)])

    def _start(self, stage: _Stage, passage: _Passage, graph: _Graph) -> None:
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copies):
            passage.device.copy_(passage.host, non_blocking=True)
        stage.copied.record(self._copies)
        compute.wait_event(stage.copied)
        graph.inputs.copy_(passage.device)
        graph.graph.replay()
        passage.velocity_B2.copy_(graph.velocity_B2, non_blocking=True)
        stage.ended.record(compute)

    def _capture(self, shape: BatchShape) -> _Graph:
        """Makes a shape's graph on rows without events, all of the spare slot.

        No stream may take part in a rehearsal.
        """
        inputs = torch.zeros(staged_bytes(shape), dtype=torch.uint8, device=self._device)
        batch = StagedBatch.in_buffer(inputs, shape)
        batch.slot_B.fill_(self._spare_slot)
        outputs: list[Tensor] = []
        graph = capture(
            lambda: outputs.append(self._run(batch, shape)), pool=self._pool, warm_ups=1
        )
        captured = _Graph(graph, inputs, outputs[-1])
        self._graphs[shape] = captured
        return captured

    def _run(self, batch: StagedBatch, shape: BatchShape) -> Tensor:
        columns = place_events(
            batch.events,
            steps=self._n_steps,
            bins_per_step=self._bins_per_step,
            places=shape.events,
        )
        return self._work(batch.slot_B, EventBatch.of(columns))
