"""A decoder ready to run: a loaded model with its streams."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cortex.checkpoint import Checkpoint, load_checkpoint
from cortex.computed import Computed
from cortex.errors import InputError
from cortex.event_batch import EventBatch, collate_ragged
from cortex.events import Events
from cortex.graph_runner import LEAST_EVENTS, GraphRunner, Launched, Work
from cortex.precision import Precision, to_bfloat16
from cortex.ragged_events import RaggedEvents
from cortex.staged_batch import row_counts
from cortex.streaming import StreamCache

Velocities = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]

# Events a step of a window's or a stream's, in the batches that are rehearsed.
_REHEARSED_EVENTS: tuple[int, ...] = (LEAST_EVENTS, 2 * LEAST_EVENTS, 4 * LEAST_EVENTS)


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
        last_bin = torch.tensor([self.grid.bins_per_step - 1], device=self.device)
        # One slot more, for the rows that only fill a batch up.
        self._cache = StreamCache(self.model, max_streams + 1, last_bin)
        self.slots = max_streams
        with torch.no_grad():
            self._query = self.model.velocity_query(last_bin)
        self._free = list(reversed(range(max_streams)))
        self._steps_done: dict[int, int] = {}
        self.reset(np.array([self.slots]), np.zeros(1, np.int64))
        self._windows: GraphRunner | None = None
        self._steps: GraphRunner | None = None
        if self.device.type == "cuda":
            self._windows, self._steps = self._runners()

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
    def launch_windows(self, events: RaggedEvents) -> Computed | Launched:
        """Begins what `decode` does, of valid events in time order."""
        if self._windows is not None:
            return self._windows.launch(events, np.empty(0, np.int64))
        batch = self._collate(events, self.grid.window_steps)
        return Computed(self._decode_windows(batch).numpy())

    @torch.inference_mode()
    def launch_steps(self, slot_B: Slots, events: RaggedEvents) -> Computed | Launched:
        """Begins to advance each of B distinct slots by one step.

        Args:
            slot_B: slots that were `reset` once.
            events: each step's events, valid and in time order, time_bin within the step.
        """
        if self._steps is not None:
            return self._steps.launch(events, slot_B)
        batch = self._collate(events, 1)
        return Computed(self._decode_steps(torch.from_numpy(slot_B), batch).numpy())

    @torch.inference_mode()
    def reset(self, slot_B: Slots, first_step_B: Slots) -> None:
        """Makes B slots empty streams, after all that was launched before.

        Args:
            slot_B: distinct slots.
            first_step_B: number of each stream's first step.
        """
        slots, first_steps = (
            torch.from_numpy(x).to(self.device, non_blocking=True) for x in (slot_B, first_step_B)
        )
        self._cache.reset(slots, first_steps)

    def window_shapes(self, max_rows: int) -> list[tuple[int, int]]:
        """The (windows, events in the fullest) to rehearse for batches of up to max_rows."""
        return self._shapes(max_rows, self.grid.window_steps)

    def step_shapes(self, max_rows: int) -> list[tuple[int, int]]:
        """The (steps, events in the fullest) to rehearse for batches of up to max_rows."""
        return self._shapes(min(max_rows, self.slots), 1)

    def open(self) -> int:
        """Opens an empty stream and returns its slot. Raises InputError when all are taken."""
        if not self._free:
            raise InputError(f"all {self.slots} streams are open, expected fewer at once")
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

    def _runners(self) -> tuple[GraphRunner, GraphRunner]:
        pool = torch.cuda.graph_pool_handle()

        def runner(work: Work, n_steps: int) -> GraphRunner:
            return GraphRunner(
                work,
                n_steps=n_steps,
                bins_per_step=self.grid.bins_per_step,
                spare_slot=self.slots,
                device=self.device,
                pool=pool,
            )

        return (
            runner(lambda _, batch: self._decode_windows(batch), self.grid.window_steps),
            runner(self._decode_steps, 1),
        )

    def _decode_windows(self, batch: EventBatch) -> Tensor:
        return self.model.decode(batch, self._query, last=1)[:, 0, 0]

    def _decode_steps(self, slot_B: Tensor, batch: EventBatch) -> Tensor:
        return self._cache.step(slot_B, batch)[:, 0]

    def _collate(self, events: RaggedEvents, n_steps: int) -> EventBatch:
        return collate_ragged(events, n_steps=n_steps, bins_per_step=self.grid.bins_per_step)

    def _shapes(self, max_rows: int, n_steps: int) -> list[tuple[int, int]]:
        counts, widths = row_counts(max_rows), _REHEARSED_EVENTS
        if self._steps is None:
            # Without graphs there is nothing to make ready: a batch tells what its size costs.
            counts = [1 << power for power in range((max_rows - 1).bit_length())]
            widths = _REHEARSED_EVENTS[:1]
        rows = [*(n for n in counts if n < max_rows), max_rows]
        return [(n, events * n_steps) for n in rows for events in widths]
