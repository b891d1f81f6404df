"""A decoder ready to run: a loaded model with its streams."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cortex.bucket import LEAST_WIDTH, padded
from cortex.captured import Captured
from cortex.checkpoint import Checkpoint, load_checkpoint
from cortex.computed import Computed
from cortex.errors import InputError
from cortex.event_batch import EventBatch, collate_ragged
from cortex.events import Events
from cortex.precision import Precision, to_bfloat16
from cortex.ragged_events import RaggedEvents
from cortex.streaming import StreamCache

# Of an EventBatch, in its order.
COLUMNS = tuple(field.name for field in fields(EventBatch))

Velocities = npt.NDArray[np.float32]


class Decoder:
    """Decodes windows and streams with one model.

    A decoded velocity is that of the last bin of the newest step. Not thread-safe: one thread owns
    a decoder.

    Attributes:
        checkpoint: the model and its vocabulary.
        name: the model's name.
        digest: SHA-256 of the weights.
        grid: the time grid.
        unit_ids: the unit vocabulary.
        velocity_unit: unit of the decoded velocity.
        slots: streams that it has room for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        max_streams: int = 64,
        precision: Precision = "fp32",
    ) -> None:
        """Moves the model to a device and makes room for streams.

        Args:
            checkpoint: the model; under "bf16" a copy of it runs.
            device: "cpu", or a GPU's name.
            max_streams: streams that can be open at once.
            precision: "fp32" or "bf16" weights, activations and caches.

        Raises:
            InputError: the device is not there.
        """
        try:
            self.device = torch.device(device)
            model = to_bfloat16(checkpoint.model) if precision == "bf16" else checkpoint.model
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {device!r} cannot be used: {reason}") from error
        self.checkpoint = checkpoint
        self.name = checkpoint.name
        self.digest = checkpoint.digest
        self.grid = checkpoint.model.config.grid
        self.unit_ids = checkpoint.unit_ids
        self.velocity_unit = checkpoint.velocity_unit
        # One slot more, for the rows that only fill a batch up.
        self._cache = StreamCache(self.model, max_streams + 1)
        self.slots = self._spare_slot = max_streams
        self._cache.reset(self._spare_slot)
        self._free = list(reversed(range(max_streams)))
        self._steps_done: dict[int, int] = {}
        self._last_bin = torch.tensor([self.grid.bins_per_step - 1], device=self.device)
        on_gpu = self.device.type == "cuda"
        self._window_graphs = Captured(self._decode_windows) if on_gpu else None
        self._step_graphs = Captured(self._decode_steps) if on_gpu else None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "cpu",
        max_streams: int = 64,
        precision: Precision = "fp32",
    ) -> "Decoder":
        """A decoder from a checkpoint directory. Raises InputError when it cannot be used."""
        checkpoint = load_checkpoint(path)
        return cls(checkpoint, device=device, max_streams=max_streams, precision=precision)

    def decode(self, windows: Sequence[Events]) -> Velocities:
        """Velocity (B, 2) at the last bin of each window.

        Args:
            windows: events with time_bin in [0, grid.window_bins). A window is a stream that begins
                empty at its first step.
        """
        return self.launch_windows(RaggedEvents.of(windows)).wait()

    @torch.inference_mode()
    def launch_windows(self, events: RaggedEvents) -> Computed:
        """Begins what `decode` does, of valid events in time order."""
        batch = self._collate(events, self.grid.window_steps)
        if self._window_graphs is None:
            return Computed(self._decode_windows(*vars(batch).values()).numpy())
        inputs = tuple(vars(padded(batch)).values())
        if not self._window_graphs.has(*inputs):
            self._window_graphs.capture(*(x.to(self.device) for x in inputs))
        return Computed(self._window_graphs(*inputs)[: len(events)].cpu().numpy())

    @torch.inference_mode()
    def launch_steps(self, slot_B: npt.NDArray[np.int64], events: RaggedEvents) -> Computed:
        """Begins to advance each of B distinct slots by one step.

        Args:
            slot_B: slots that were `reset` once.
            events: each step's events, valid and in time order, time_bin within the step.
        """
        velocity = self._step(torch.from_numpy(slot_B), self._collate(events, 1))
        return Computed(velocity.cpu().numpy())

    @torch.inference_mode()
    def reset(self, slot_B: npt.NDArray[np.int64], first_step_B: npt.NDArray[np.int64]) -> None:
        """Makes B slots empty streams, after all that was launched before.

        Args:
            slot_B: distinct slots.
            first_step_B: number of each stream's first step.
        """
        first_step = torch.from_numpy(first_step_B).to(self.device)
        self._cache.reset(*slot_B.tolist(), first_step=first_step)

    def window_shapes(self, max_rows: int) -> list[tuple[int, int]]:
        """The (windows, events in the fullest) to rehearse for batches of up to max_rows."""
        events = LEAST_WIDTH * self.grid.window_steps
        return [(rows, events) for rows in _powers_of_two(max_rows)]

    def step_shapes(self, max_rows: int) -> list[tuple[int, int]]:
        """The (steps, events in the fullest) to rehearse for batches of up to max_rows."""
        return [(rows, LEAST_WIDTH) for rows in _powers_of_two(min(max_rows, self.slots))]

    def open(self) -> int:
        """Opens an empty stream and returns its slot. Raises InputError when all are taken."""
        if not self._free:
            raise InputError(f"all {self._spare_slot} streams are open, expected fewer at once")
        slot = self._free.pop()
        self.reset(np.array([slot]), np.zeros(1, np.int64))
        self._steps_done[slot] = 0
        return slot

    def close(self, slot: int) -> None:
        """Frees a stream's slot. Raises InputError when it is not open."""
        if self._steps_done.pop(slot, None) is None:
            raise InputError(f"stream slot {slot} is not open")
        self._free.append(slot)

    def step(self, slots: Sequence[int], events: Sequence[Events]) -> Velocities:
        """Advances each of B distinct streams by one step.

        Args:
            slots: open slots, each once.
            events: each step's events, time_bin in [0, grid.bins_per_step) within the step.

        Returns:
            Velocity (B, 2) at the step's last bin.

        Raises:
            InputError: a slot is not open, or named twice.
        """
        for slot in slots:
            if slot not in self._steps_done:
                raise InputError(f"stream slot {slot} is not open")
        if len(set(slots)) != len(slots):
            raise InputError(f"stream slots {list(slots)} repeat, expected distinct ones")
        launched = self.launch_steps(np.array(slots, np.int64), RaggedEvents.of(events))
        for slot in slots:
            self._steps_done[slot] += 1
        return launched.wait()

    def context_steps(self, slot: int) -> int:
        """Steps of the window that the stream's last answer rests on."""
        return min(self._steps_done[slot], self.grid.window_steps)

    def _step(self, slot_B: Tensor, batch: EventBatch) -> Tensor:
        if self._step_graphs is None:
            return self._decode_steps(slot_B, *vars(batch).values())
        batch = padded(batch)
        spare = slot_B.new_full((len(batch.first_step_B),), self._spare_slot)
        inputs = (spare, *vars(batch).values())
        if not self._step_graphs.has(*inputs):
            # On the spare slot alone: no stream may take part in a rehearsal.
            self._step_graphs.capture(*(x.to(self.device) for x in inputs))
        slots = torch.cat((slot_B, spare[len(slot_B) :]))
        return self._step_graphs(slots, *inputs[1:])[: len(slot_B)]

    def _decode_windows(self, *columns: Tensor) -> Tensor:
        batch = EventBatch(**dict(zip(COLUMNS, columns, strict=True)))
        velocity: Tensor = self.model(batch, self._last_bin)[:, -1, 0]
        return velocity

    def _decode_steps(self, slot_B: Tensor, *columns: Tensor) -> Tensor:
        batch = EventBatch(**dict(zip(COLUMNS, columns, strict=True)))
        return self._cache.step(slot_B, batch, self._last_bin)[:, 0]

    def _collate(self, events: RaggedEvents, n_steps: int) -> EventBatch:
        return collate_ragged(events, n_steps=n_steps, bins_per_step=self.grid.bins_per_step)


def _powers_of_two(limit: int) -> list[int]:
    """Those up to a limit, and the limit itself."""
    return [1 << power for power in range((limit - 1).bit_length())] + [limit]
