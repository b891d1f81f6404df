"""A curve for readers: a table, a picture, and rows of a measured one."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tools.measured.table import Row
from training.adaptation.curve import Point

# Colour and name in the picture, by kind.
STYLES = {"adapted": ("#d1495b", "adapted"), "scratch": ("#2f7fb8", "from scratch")}


def as_text(title: str, points: Sequence[Point]) -> str:
    """A table, a line a point."""
    splits = list(points[0].r2)
    head = f"{'trials':>8}  {'decoder':<9}{'R2':>7}{'sd':>7}"
    lines = [title, head + "".join(f"{f'split {s}':>9}" for s in splits) + f"{'steps':>7}"]
    for point in points:
        line = f"{point.trials:>8}  {point.kind:<9}{point.mean:>7.3f}{point.sd:>7.3f}"
        scores = "".join(f"{r2:>9.3f}" for r2 in point.r2.values())
        lines.append(f"{line}{scores}{point.steps:>7}")
    return "\n".join(lines)


def measured_rows(prefix: str, points: Sequence[Point]) -> list[Row]:
    """A row a point, with the other decoder's figure beside it.

    Args:
        prefix: of the rows' names, as in "adapt/mihi".
        points: the curve.
    """
    return [
        Row(
            name=f"{prefix}/k_{'all' if point.k is None else point.k}/{point.kind}",
            value=point.mean,
            unit="R2",
            baselines={o.kind: o.mean for o in points if o.k == point.k and o is not point},
            note=_note(point),
        )
        for point in points
    ]


def draw(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Writes a PNG of R2 against the number of trials, mean and sd over the splits."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    panel = figure.subplots()
    for kind, (color, label) in STYLES.items():
        mine = sorted((p for p in points if p.kind == kind), key=lambda p: p.trials)
        panel.errorbar(
            [p.trials for p in mine],
            [p.mean for p in mine],
            yerr=[p.sd for p in mine],
            marker="o",
            markersize=4,
            capsize=3,
            color=color,
            label=label,
        )
    counts = sorted({p.trials for p in points})
    panel.set_xscale("log")
    panel.set_xticks(counts, [str(count) for count in counts])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.axhline(0.0, color="#cccccc", linewidth=0.8, zorder=0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel("trials of the new recording")
    panel.set_ylabel("held-out velocity R2")
    panel.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")


def _note(point: Point) -> str:
    scores = ", ".join(f"{r2:.3f}" for r2 in point.r2.values())
    many = f"mean of {len(point.r2)} splits by trial ({scores}), sd {point.sd:.3f}"
    trials = f"{point.trials} trial{'s' if point.trials > 1 else ''}, {point.steps} steps"
    return f"{trials}; {many if len(point.r2) > 1 else 'one split by trial'}"
