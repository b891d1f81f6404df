"""Runs batches on a GPU: one copy in, one CUDA graph a shape, one copy out, and no waiting.

While one batch is computed, the next is filled into pinned memory and copied on a stream of its
own. A graph reads its inputs where it was captured, so a batch goes from where it was copied to
there in one more copy, inside the GPU, when the graph before has ended.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cortex.event_batch import place_events
from cortex.ragged_events import RaggedEvents
from cortex.staged_batch import BatchShape, StagedBatch, staged_bytes
from kernels.cuda_graph import capture

# Batches that may have been launched and not have ended.
STAGES = 2

Work = Callable[[StagedBatch], Tensor]


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


class _Stage:
    """Memory that one batch passes through on its way in and out."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.host = torch.empty(0, dtype=torch.uint8)
        self.device = torch.empty(0, dtype=torch.uint8, device=device)
        self.velocity_B2 = torch.empty((0, 2))
        self._batches: dict[BatchShape, StagedBatch] = {}
        self.copied, self.ended = torch.cuda.Event(), torch.cuda.Event()

    def batch(self, shape: BatchShape) -> StagedBatch:
        """Where a batch is filled in on the host; there must be none under way."""
        if shape not in self._batches:
            self._make_room(staged_bytes(shape), shape.rows)
            self._batches[shape] = StagedBatch.in_buffer(self.host, shape)
        return self._batches[shape]

    def _make_room(self, n_bytes: int, rows: int) -> None:
        if len(self.host) < n_bytes:
            self.host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
            self.device = torch.empty(n_bytes, dtype=torch.uint8, device=self._device)
            self._batches.clear()
        if len(self.velocity_B2) < rows:
            self.velocity_B2 = torch.empty((rows, 2), pin_memory=True)


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
            work: (B, 2) velocities of a batch on the GPU. It does the same whatever its inputs
                hold, without waiting for the device.
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
        places = place_events(events, n_steps=self._n_steps, bins_per_step=self._bins_per_step)
        shape = BatchShape.holding(len(events), self._n_steps, places.fullest)
        stage = self._stages[self._launches % STAGES]
        self._launches += 1
        stage.ended.synchronize()
        stage.batch(shape).fill(events, places, slot_B, self._spare_slot)
        self._start(stage, self._graphs.get(shape) or self._capture(shape))
        return Launched(stage.ended, stage.velocity_B2.numpy()[: len(events)])

    def _start(self, stage: _Stage, graph: _Graph) -> None:
        n_bytes = len(graph.inputs)
        with torch.cuda.stream(self._copies):
            stage.device[:n_bytes].copy_(stage.host[:n_bytes], non_blocking=True)
            stage.copied.record()
        compute = torch.cuda.current_stream()
        compute.wait_event(stage.copied)
        graph.inputs.copy_(stage.device[:n_bytes])
        graph.graph.replay()
        velocity_B2 = stage.velocity_B2[: len(graph.velocity_B2)]
        velocity_B2.copy_(graph.velocity_B2, non_blocking=True)
        stage.ended.record()

    def _capture(self, shape: BatchShape) -> _Graph:
        """Makes a shape's graph on rows without events, all of the spare slot.

        No stream may take part in a rehearsal.
        """
        inputs = torch.zeros(staged_bytes(shape), dtype=torch.uint8, device=self._device)
        batch = StagedBatch.in_buffer(inputs, shape)
        batch.slot_B.fill_(self._spare_slot)
        outputs: list[Tensor] = []
        graph = capture(lambda: outputs.append(self._work(batch)), pool=self._pool)
        captured = _Graph(graph, inputs, outputs[-1])
        self._graphs[shape] = captured
        return captured
