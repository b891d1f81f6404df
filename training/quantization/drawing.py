"""Pictures of what INT8 costs: R2 of every form, and each layer's error."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.quantization.report import Case

FORMS = {
    "fp32": "#404040",
    "bf16": "#2f7fb8",
    "int8_weights": "#e9a13b",
    "int8": "#d1495b",
}
KEPT = "#2f7fb8"
INT8 = "#d1495b"
_LEAST = 1e-9
"""R2 below which an error is drawn as this, since the scale is logarithmic."""


def draw_scores(cases: Sequence[Case], path: Path) -> None:
    """Writes a PNG: for each case, the R2 of its forms with their intervals."""
    figure = Figure(figsize=(1.6 + 2.2 * len(cases), 4.2), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for panel, case in zip(panels, cases, strict=True):
        for place, each in enumerate(case.comparison.figures):
            low, high = each.interval or (each.r2, each.r2)
            panel.errorbar(
                place,
                each.r2,
                yerr=[[max(each.r2 - low, 0)], [max(high - each.r2, 0)]],
                fmt="o",
                color=FORMS[each.key],
                capsize=4,
            )
            panel.annotate(
                f"{each.r2:.4f}",
                (place, high),
                textcoords="offset points",
                xytext=(0, 4),
                ha="center",
                fontsize=7,
            )
        panel.set_xticks(range(len(FORMS)), [key.replace("_", "\n") for key in FORMS], fontsize=8)
        panel.set_xlim(-0.5, len(FORMS) - 0.5)
        panel.set_title(f"{case.name} ({case.source.name})", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("velocity R2, streamed, 95 % interval")
    _save(figure, path)


def draw_layers(cases: Sequence[Case], path: Path) -> None:
    """Writes a PNG: for each case, what each layer alone costs, and which stay in bfloat16."""
    most = max(len(case.r2_lost_alone) for case in cases)
    figure = Figure(figsize=(1.0 + 3.6 * len(cases), 1.2 + 0.2 * most), layout="constrained")
    for panel, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        _layers(panel, case)
    _save(figure, path)


def _layers(panel: Axes, case: Case) -> None:
    lost = case.r2_lost_alone
    place = np.arange(len(lost))
    colors = [KEPT if layer in case.kept else INT8 for layer in lost]
    panel.barh(place, [max(value, _LEAST) for value in lost.values()], color=colors)
    panel.set_yticks(place, list(lost), fontsize=7)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlabel("R2 lost, the layer alone in INT8", fontsize=8)
    kept = f"; {len(case.kept)} kept in bf16 (blue)" if case.kept else ""
    panel.set_title(f"{case.name} ({case.source.name}){kept}", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)
