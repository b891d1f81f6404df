"""A roofline plot: how near each kernel comes to what memory and arithmetic allow.

Source: Williams et al. 2009, "Roofline: an insightful visual performance model",
doi:10.1145/1498765.1498785.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kernels.benchmark_cases import Case


def draw(points: Sequence[tuple[Case, float]], bandwidth: float, rate: float, path: Path) -> None:
    """Writes a PNG.

    Args:
        points: cases and the microseconds they took.
        bandwidth: bytes a second of the memory.
        rate: operations a second of the matrix units, in bfloat16; int8 has twice as many.
        path: where to.
    """
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    panel = figure.subplots()
    intensity = np.logspace(-1, 4, 200)
    for peak, type_name, dashes in ((rate, "bfloat16", "-"), (2 * rate, "int8", "--")):
        roof = np.minimum(intensity * bandwidth, peak) / 1e12
        panel.plot(intensity, roof, dashes, color="#444444", label=f"roof of {type_name}")
    kinds = list(dict.fromkeys(case.name.partition("/")[0] for case, _ in points))
    for number, kind in enumerate(kinds):
        mine = [(c, us) for c, us in points if c.flops and c.name.partition("/")[0] == kind]
        if mine:
            panel.scatter(
                [c.flops / c.bytes for c, _ in mine],
                [c.flops / us / 1e6 for c, us in mine],
                color=f"C{number}",
                label=kind,
                s=24,
            )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("operations a byte")
    panel.set_ylabel("TFLOP/s")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=9)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
