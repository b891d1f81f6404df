r"""Times a decoder's forward and its streaming step on a GPU, in bfloat16.

bazel run //cortex:benchmark -- --measured=docs/measured

Beside each figure stands plain PyTorch in a CUDA graph, from the same run; every output is first
compared with the same model in float64. With --quantized, INT8 models beside bfloat16 ones instead:

bazel run //cortex:benchmark -- --quantized --sizes=S --compiled=quant/S/batch_32 \
    --measured=docs/measured
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from absl import flags
from torch import Tensor
from tqdm import tqdm

from cortex import cli
from cortex.benchmark_inputs import make_batch, make_model
from cortex.errors import InputError
from cortex.int8_speed import Int8Speed
from cortex.model import Model
from cortex.precision import to_bfloat16
from cortex.streaming import StreamCache
from kernels.dispatch import forced
from kernels.gpu_time import eager_time, gpu_time
from tools.measured.command_line import command_line
from tools.measured.table import Row, measured_here, update

SIZES = flags.DEFINE_list("sizes", "XS,S,M", "model sizes")
BATCHES = flags.DEFINE_list("batches", "1,8,32", "samples of a forward")
STREAMS = flags.DEFINE_list("streams", "1,32,512,4096", "streams of a step")
UNITS = flags.DEFINE_integer("units", 182, "units", lower_bound=1)
EVENTS = flags.DEFINE_integer("events", 512, "events in a sample's window", lower_bound=1)
COMPILED = flags.DEFINE_list(
    "compiled", "", "rows that are also timed by torch.compile (half a minute each)"
)
QUANTIZED = flags.DEFINE_bool("quantized", False, "INT8 models beside bfloat16 ones")
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")


def main(argv: list[str]) -> None:
    """Measures all sizes and shows the table."""
    cli.no_arguments(argv)
    if not torch.cuda.is_available():
        raise InputError("the benchmark needs a GPU, and there is none here")
    rows: list[Row] = []
    for size in SIZES.value:
        for row in _rows(size):
            rows.append(row)
            _write(rows)
    for row in rows:
        others = ", ".join(f"{name} {value:.3f}" for name, value in row.baselines.items())
        print(f"{row.name:<36}{row.value:>9.3f} {row.unit:<12}{others}   {row.note}")


def _write(rows: list[Row]) -> None:
    """The table of what has been measured so far."""
    if MEASURED.value:
        name = "int8_speed" if QUANTIZED.value else "decoder_speed"
        command = command_line("//cortex:benchmark", places=("measured",))
        update(measured_here(name, rows, command=command), Path(MEASURED.value))


def _rows(size: str) -> Iterator[Row]:
    """A size's rows, as they are measured."""
    model = make_model(size, UNITS.value)
    batches, streams = ([int(n) for n in flag.value] for flag in (BATCHES, STREAMS))
    if QUANTIZED.value:
        speed = Int8Speed(size, model, events=EVENTS.value, compiled=COMPILED.value)
        yield speed.memory_row()
        for n in tqdm(batches, desc=f"{size} forward"):
            yield from speed.forward_rows(n)
        for n in tqdm(streams, desc=f"{size} step"):
            yield from speed.step_rows(n)
        return
    for n in tqdm(batches, desc=f"{size} forward"):
        yield _decode_row(f"forward/{size}/batch_{n}", model, n, None)
        yield _decode_row(f"window/{size}/batch_{n}", model, n, 1)
    for n in tqdm(streams, desc=f"{size} step"):
        yield _step_row(size, model, n)


def _decode_row(name: str, model: Model, samples: int, steps: int | None) -> Row:
    """Windows of which all steps are decoded, or the last ones alone."""
    batch = make_batch(model, samples, model.config.grid.window_steps, EVENTS.value)
    last = torch.tensor([model.config.grid.bins_per_step - 1], device="cuda")
    low = to_bfloat16(model).prepare()

    with torch.no_grad():
        query = low.velocity_query(last)

    def work() -> Tensor:
        return low.decode(batch, query, steps)

    with torch.inference_mode():
        exact = model.double()(batch, last)[:, -(steps or 0) :]
        error = _error(work(), exact)
        model.float()
        time = gpu_time(work)
        cold = gpu_time(work, cold=True)
        with forced("torch"):
            baselines = _baselines(name, work)
            plain_error = _error(work(), exact)
    return Row(
        name=name,
        value=time.median,
        unit="ms",
        p99=time.p99,
        baselines=baselines,
        note=f"cold {cold.median:.3f}; error {error:.1e} of float64's norm, PyTorch's "
        f"{plain_error:.1e}",
    )


def _step_row(size: str, model: Model, streams: int) -> Row:
    name = f"step/{size}/streams_{streams}"
    config = model.config
    batch = make_batch(model, streams, 1, max(EVENTS.value // config.grid.window_steps, 1))
    last = torch.tensor([config.grid.bins_per_step - 1], device="cuda")
    low = to_bfloat16(model)
    before = torch.cuda.memory_allocated()
    cache = StreamCache(low, streams, last)
    memory = torch.cuda.memory_allocated() - before
    slot_B = torch.arange(streams, device="cuda")

    def work() -> Tensor:
        return cache.step(slot_B, batch)

    with torch.inference_mode():
        cache.reset(slot_B, torch.zeros_like(slot_B))
        # A full window, as after the first second.
        for _ in range(config.grid.window_steps):
            work()
        time = gpu_time(work)
        with forced("torch"):
            baselines = _baselines(name, work) if streams <= 512 else {}
    return Row(
        name=name,
        value=time.median,
        unit="ms",
        p99=time.p99,
        baselines=baselines,
        note=f"{memory / 2**20:,.0f} MiB of stream state",
    )


def _baselines(name: str, work: Callable[[], Tensor]) -> dict[str, float]:
    """Milliseconds of other ways to run the same plain PyTorch."""
    baselines = {
        "PyTorch in a graph": gpu_time(work).median,
        "PyTorch, launched eagerly": eager_time(work).median,
    }
    if name in COMPILED.value:
        compiled = torch.compile(work)
        baselines["torch.compile in a graph"] = gpu_time(compiled).median
    return baselines


def _error(out: Tensor, exact: Tensor) -> float:
    return float((out.double() - exact).norm() / exact.norm())


if __name__ == "__main__":
    cli.run(main)
