"""Times a decoder's forward and its streaming step on a GPU, in bfloat16.

bazel run //cortex:benchmark -- --measured=docs/measured

Beside each figure stands plain PyTorch in a CUDA graph, from the same run; every output is first
compared with the same model in float64.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from absl import flags
from torch import Tensor
from tqdm import tqdm

from cortex import cli
from cortex.errors import InputError
from cortex.event_batch import EventBatch
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.precision import to_bfloat16
from cortex.streaming import StreamCache
from cortex.time_grid import TimeGrid
from kernels.dispatch import forced
from kernels.gpu_time import eager_time, gpu_time
from tools.measured.command_line import command_line
from tools.measured.table import Row, measured_here, write

SIZES = flags.DEFINE_list("sizes", "XS,S,M", "model sizes")
BATCHES = flags.DEFINE_list("batches", "1,8,32", "samples of a forward")
STREAMS = flags.DEFINE_list("streams", "1,32,512,4096", "streams of a step")
UNITS = flags.DEFINE_integer("units", 182, "units", lower_bound=1)
EVENTS = flags.DEFINE_integer("events", 512, "events in a sample's window", lower_bound=1)
COMPILED = flags.DEFINE_list(
    "compiled", "", "rows that are also timed by torch.compile (half a minute each)"
)
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")


def main(argv: list[str]) -> None:
    """Measures all sizes and shows the table."""
    cli.no_arguments(argv)
    if not torch.cuda.is_available():
        raise InputError("the benchmark needs a GPU, and there is none here")
    rows: list[Row] = []
    for size in SIZES.value:
        model = make_model(size, UNITS.value)
        for batch in tqdm([int(b) for b in BATCHES.value], desc=f"{size} forward"):
            rows.append(_forward_row(size, model, batch))
        for streams in tqdm([int(s) for s in STREAMS.value], desc=f"{size} step"):
            rows.append(_step_row(size, model, streams))
        _write(rows)
    for row in rows:
        others = ", ".join(f"{name} {ms:.3f}" for name, ms in row.baselines.items())
        print(f"{row.name:<24}{row.value:>8.3f} ms   {others}   {row.note}")


def _write(rows: list[Row]) -> None:
    """The table of what has been measured so far."""
    if MEASURED.value:
        command = command_line("//cortex:benchmark", places=("measured",))
        write(measured_here("decoder_speed", rows, command=command), Path(MEASURED.value))


def make_model(size: str, units: int) -> Model:
    """A model of random weights on the GPU."""
    torch.manual_seed(0)
    config = ModelConfig.of_size(size, n_units=units, grid=TimeGrid())
    return Model(config).eval().cuda()


def make_batch(model: Model, samples: int, steps: int, events: int) -> EventBatch:
    """Random events, as many in every sample, of varying number in its steps."""
    config = model.config
    torch.manual_seed(1)
    step = torch.randint(steps, (samples, events)).sort(1).values
    rank = torch.arange(events) - torch.searchsorted(step, step)
    width = int(rank.max()) + 1
    mask = torch.zeros((samples, steps, width), dtype=torch.bool)
    mask[torch.arange(samples)[:, None], step, rank] = True
    shape = (samples, steps, width)
    return EventBatch(
        unit_BSE=torch.randint(config.n_units, shape) * mask,
        phase_BSE=torch.randint(config.grid.bins_per_step, shape) * mask,
        value_BSE=torch.randint(1, 3, shape) * mask,
        mask_BSE=mask,
        count_BS=mask.sum(-1),
    ).to(torch.device("cuda"))


def _forward_row(size: str, model: Model, samples: int) -> Row:
    name = f"forward/{size}/batch_{samples}"
    batch = make_batch(model, samples, model.config.grid.window_steps, EVENTS.value)
    last = torch.tensor([model.config.grid.bins_per_step - 1], device="cuda")
    low = to_bfloat16(model).prepare()

    with torch.no_grad():
        query = low.velocity_query(last)

    def work() -> Tensor:
        return low.decode(batch, query)

    with torch.inference_mode():
        exact = model.double()(batch, last)
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
