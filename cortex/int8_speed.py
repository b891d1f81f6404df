"""Times INT8 models on a GPU beside the same model in bfloat16."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortex.benchmark_inputs import make_batch
from cortex.int8_baselines import torchao_is_here, with_int_mm, with_torchao
from cortex.linear_add import LinearAdd
from cortex.model import Model
from cortex.precision import to_bfloat16
from cortex.quantization import Quantization
from cortex.quantized_model import float_layers, quantized
from cortex.streaming import StreamCache
from kernels.dispatch import forced
from kernels.gpu_time import GpuTime, gpu_time
from tools.measured.table import Row

BF16, DYNAMIC, STATIC = "bf16", "INT8, dynamic", "INT8, static"
# Times do not depend on it.
_ANY_SCALE = 8 / 127
# By turns, so that a clock that drifts slows down all alike.
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A prepared model and the bytes that it takes."""

    model: Model
    allocated: int


class Int8Speed:
    """One size of model, in bfloat16 and in INT8 with dynamic and with static inputs."""

    def __init__(self, size: str, model: Model, *, events: int, compiled: Sequence[str]) -> None:
        """Makes the models.

        Args:
            size: name of the size, part of rows' names.
            model: the float model, on the GPU.
            events: in a sample's window.
            compiled: rows for which other ways to INT8, compiled by PyTorch, are timed too.
        """
        layers = float_layers(model)
        adding = [name for name, layer in layers.items() if isinstance(layer, LinearAdd)]
        static = Quantization(input_scales=dict.fromkeys(adding, _ANY_SCALE))
        self._size = size
        self._float = model
        self._events = events
        self._compiled = compiled
        self._made = {
            BF16: _make(lambda: model),
            DYNAMIC: _make(lambda: quantized(model, Quantization())),
            STATIC: _make(lambda: quantized(model, static)),
        }
        self._last = torch.tensor([model.config.grid.bins_per_step - 1], device="cuda")

    def memory_row(self) -> Row:
        """What a model takes on the GPU, tables and folded weights included."""
        megabytes = {form: made.allocated / 1e6 for form, made in self._made.items()}
        return Row(
            name=f"quant/{self._size}/memory_mb",
            value=megabytes[DYNAMIC],
            unit="MB",
            baselines={BF16: megabytes[BF16]},
            note="GPU memory of a model ready to run",
        )

    @torch.no_grad()
    def forward_rows(self, samples: int) -> list[Row]:
        """Windows at once: the time, and its ratio to bfloat16's."""
        config = self._float.config
        batch = make_batch(self._float, samples, config.grid.window_steps, self._events)

        def forward(model: Model) -> Callable[[], Tensor]:
            query = model.velocity_query(self._last)
            return lambda: model.decode(batch, query)

        work = {form: forward(made.model) for form, made in self._made.items()}
        exact = self._float(batch, self._last)
        error = {form: _error(run(), exact) for form, run in work.items()}
        note = (
            f"{DYNAMIC} errs by {error[DYNAMIC]:.1e} of float32's norm, {BF16} by {error[BF16]:.1e}"
        )
        rows = self._rows(f"batch_{samples}", work, note)
        ours = rows[0]
        if ours.name in self._compiled:
            rows += [
                Row(
                    name=f"{ours.name}/{other}",
                    value=milliseconds,
                    unit="ms",
                    baselines={STATIC: ours.value, BF16: ours.baselines[BF16]},
                    note="its layers in the same model, by torch.compile",
                )
                for other, milliseconds in self._compiled_times(forward).items()
            ]
        return rows

    @torch.no_grad()
    def step_rows(self, streams: int) -> list[Row]:
        """A step of many streams: the time, and its ratio to bfloat16's."""
        config = self._float.config
        events = max(self._events // config.grid.window_steps, 1)
        batch = make_batch(self._float, streams, 1, events)
        slot_B = torch.arange(streams, device="cuda")

        def step(model: Model) -> Callable[[], Tensor]:
            cache = StreamCache(model, streams, self._last)
            cache.reset(slot_B, torch.zeros_like(slot_B))
            # A full window, as after the first second.
            for _ in range(config.grid.window_steps):
                cache.step(slot_B, batch)
            return lambda: cache.step(slot_B, batch)

        work = {form: step(made.model) for form, made in self._made.items()}
        return self._rows(f"streams_{streams}", work, "")

    def _rows(
        self,
        place: str,
        work: dict[str, Callable[[], Tensor]],
        note: str,
    ) -> list[Row]:
        name = f"quant/{self._size}/{place}"
        rounds = [{form: gpu_time(run) for form, run in work.items()} for _ in range(_ROUNDS)]
        times = {form: _middle([each[form] for each in rounds]) for form in work}
        milliseconds = {form: time.median for form, time in times.items()}
        ours = milliseconds.pop(STATIC)
        bf16 = milliseconds[BF16]
        return [
            Row(
                name=name,
                value=ours,
                unit="ms",
                p99=times[STATIC].p99,
                baselines=milliseconds,
                note="; ".join(filter(None, (f"of {STATIC}", note))),
            ),
            Row(
                name=f"{name}/ratio_to_bf16",
                value=ours / bf16,
                unit="of bf16's time",
                baselines={form: ms / bf16 for form, ms in milliseconds.items() if form != BF16},
                note=f"of {STATIC}; in the same run, by turns",
            ),
        ]

    def _compiled_times(self, forward: Callable[[Model], Callable[[], Tensor]]) -> dict[str, float]:
        low = to_bfloat16(self._float)
        forms = {"torch_int_mm": with_int_mm(low)}
        if torchao_is_here():
            forms["torchao"] = with_torchao(low)

        def time(model: Model) -> float:
            return gpu_time(torch.compile(forward(model.prepare()), dynamic=False)).median

        # What is compiled is plain PyTorch throughout.
        with forced("torch"):
            return {name: time(model) for name, model in forms.items()}


def _make(model: Callable[[], Model]) -> _Made:
    before = torch.cuda.memory_allocated()
    low = to_bfloat16(model()).prepare()
    return _Made(model=low, allocated=torch.cuda.memory_allocated() - before)


def _middle(times: list[GpuTime]) -> GpuTime:
    return GpuTime(
        median=float(np.median([time.median for time in times])),
        p99=max(time.p99 for time in times),
    )


def _error(out: Tensor, exact: Tensor) -> float:
    return float((out.double() - exact).norm() / exact.norm())
