"""Times every kernel beside the best other ways to its result, and shows how near the roof it is.

bazel run //kernels:benchmark -- --measured=docs/measured

Each is timed as it runs in the model: in a CUDA graph, after another of its kind. Each row says the
share of what this GPU reached in the same run: a copy through memory, and a product of 8192 x 8192
matrices. Every output is first compared with float64. With --only, the table's other rows stay as
they are, and so does the picture.
"""

from pathlib import Path

import torch
from absl import app, flags
from torch import Tensor
from tqdm import tqdm

from kernels.benchmark_cases import Case, cases
from kernels.gpu_time import gpu_time
from kernels.roofline import draw
from tools.measured.command_line import command_line
from tools.measured.table import Row, measured_here, update, write

ONLY = flags.DEFINE_list("only", "", "time only rows whose names have one of these in them")
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")

TABLE = "kernel_speed"
COPY_BYTES = 2 * 2**30
SQUARE = 8192


def main(argv: list[str]) -> None:
    """Measures all kernels and shows the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}, expected flags only")
    if not torch.cuda.is_available():
        raise app.UsageError("the benchmark needs a GPU, and there is none here")
    torch.manual_seed(0)
    bandwidth, rate = _roofs()
    print(f"copy {bandwidth / 1e9:,.0f} GB/s, bf16 product {rate / 1e12:,.0f} TFLOP/s")
    rows, points = [], []
    with torch.inference_mode():
        for case in tqdm(cases(), desc="kernels"):
            if not ONLY.value or any(part in case.name for part in ONLY.value):
                row = _row(case, bandwidth, rate)
                rows.append(row)
                points.append((case, row.value))
    for row in rows:
        others = ", ".join(f"{name} {us:.1f}" for name, us in row.baselines.items())
        print(f"{row.name:<42}{row.value:>8.1f} us   {others}   {row.note}")
    if MEASURED.value:
        folder = Path(MEASURED.value)
        command = command_line("//kernels:benchmark", places=("measured",))
        table = measured_here(TABLE, rows, command=command)
        if ONLY.value:
            update(table, folder)
        else:
            write(table, folder)
            draw(points, bandwidth, rate, folder / "kernel_roofline.png")


def _roofs() -> tuple[float, float]:
    """Bytes a second of a copy, and operations a second of a product."""
    source = torch.randn(COPY_BYTES // 2 // 4, device="cuda")
    target = torch.empty_like(source)
    # The driver's own copy is not always the fastest one.
    ways = (lambda: target.copy_(source), lambda: torch.neg(source, out=target))
    copy_ms = min(gpu_time(way, repeats=20).median for way in ways)
    a, b = (torch.randn(SQUARE, SQUARE, device="cuda").bfloat16() for _ in "ab")
    product_ms = gpu_time(lambda: a @ b, repeats=10).median
    return COPY_BYTES / copy_ms * 1e3, 2 * SQUARE**3 / product_ms * 1e3


def _row(case: Case, bandwidth: float, rate: float) -> Row:
    error = _error(case.kernel(), case.exact()) if case.exact else None
    time, cold = gpu_time(case.kernel), gpu_time(case.kernel, cold=True)
    baselines = _baselines(case)
    roof = rate * (2 if case.integer else 1)
    floor_ms = max(case.bytes / bandwidth, case.flops / roof) * 1e3
    notes = [
        f"{case.bytes / time.median / 1e6:,.0f} GB/s",
        f"{case.flops / time.median / 1e9:,.0f} TFLOP/s" if case.flops else "",
        f"{floor_ms / time.median:.0%} of the roof",
        f"cold {cold.median * 1e3:.1f} us",
        f"error {error:.1e}" if error is not None else "",
    ]
    return Row(
        name=f"kernel/{case.name}",
        value=time.median * 1e3,
        unit="us",
        p99=time.p99 * 1e3,
        baselines=baselines,
        note=", ".join(filter(None, notes)),
    )


def _baselines(case: Case) -> dict[str, float]:
    """Microseconds; what this PyTorch cannot do is left out, and said."""
    baselines = {}
    for name, work in case.baselines.items():
        try:
            baselines[name] = gpu_time(work).median * 1e3
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            print(f"{case.name}: {name} cannot be run here: {reason}")
    return baselines


def _error(out: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm; NaN where any output is."""
    return float((out.double() - exact.double()).norm() / exact.double().norm())


if __name__ == "__main__":
    app.run(main)
