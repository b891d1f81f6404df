"""Comparisons of decoders in float and in INT8: text for readers, and rows of a measured table."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortex.checkpoint import Checkpoint
from tools.measured.table import Row
from training.evaluation.figures import Figure
from training.evaluation.intervals import LEVEL, Interval
from training.quantization.comparison import Comparison
from training.quantization.quantize_checkpoint import weights_mb


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recording with its decoder.

    Attributes:
        name: of the recording, part of its rows' names, as in "chewie".
        source: the float model.
        small: the INT8 model.
        comparison: of the two.
    """

    name: str
    source: Checkpoint
    small: Checkpoint
    comparison: Comparison

    @property
    def r2_lost_alone(self) -> dict[str, float]:
        """What each layer alone costs in INT8, on calibration trials."""
        lost: dict[str, float] = self.small.card["quantization"]["r2_lost_alone"]
        return lost

    @property
    def kept(self) -> list[str]:
        """Layers that stay in bfloat16."""
        kept: list[str] = self.small.card["quantization"]["kept_in_bf16"]
        return kept


def as_text(case: Case) -> str:
    """A table, a line a form."""
    float_mb, int8_mb = weights_mb(case.source.model), weights_mb(case.small.model)
    lines = [
        f"{case.name}, model {case.source.name}: weights {float_mb:.2f} MB in fp32, "
        f"{float_mb / 2:.2f} in bf16, {int8_mb:.2f} in INT8; "
        f"kept in bf16: {', '.join(case.kept) or 'no layer'}"
    ]
    losses = {loss.baseline: loss for loss in case.comparison.losses}
    for figure in case.comparison.figures:
        line = f"  {figure.decoder:<50}R2 {figure.r2:.4f}  {_range(figure.interval)}"
        if figure.key in losses:
            loss = losses[figure.key]
            line += f"  lost {loss.r2:+.4f}  {_range(loss.interval)}"
        lines.append(line)
    return "\n".join(lines)


def measured_rows(cases: Sequence[Case]) -> list[Row]:
    """Rows quant/CASE/FORM and quant/CASE/r2_lost, and quant/SIZE/weights_mb of the largest."""
    rows = []
    for case in cases:
        rows += [_form_row(case, figure) for figure in case.comparison.figures]
        losses = {loss.baseline: loss for loss in case.comparison.losses}
        lost = losses.pop("int8")
        worst = max(case.r2_lost_alone, key=lambda layer: case.r2_lost_alone[layer])
        rows.append(
            Row(
                name=f"quant/{case.name}/r2_lost",
                value=lost.r2,
                unit="R2",
                baselines={key: loss.r2 for key, loss in losses.items()},
                note=f"from fp32 to INT8; {_interval(lost.interval)}; alone, {worst} costs most: "
                f"{case.r2_lost_alone[worst]:.1e}",
            )
        )
    # Of equally large ones, the first.
    by_size = sorted(reversed(cases), key=lambda case: weights_mb(case.source.model))
    largest = {case.source.name: case for case in by_size}
    return [*rows, *(_weights_row(case) for case in largest.values())]


def _form_row(case: Case, figure: Figure) -> Row:
    return Row(
        name=f"quant/{case.name}/{figure.key}",
        value=figure.r2,
        unit="R2",
        note=f"{case.source.name}, streamed, {figure.decoder}; {figure.trials} held-out trials, "
        f"{figure.points} points; {_interval(figure.interval)}",
    )


def _weights_row(case: Case) -> Row:
    float_mb, int8_mb = weights_mb(case.source.model), weights_mb(case.small.model)
    units = case.source.model.config.n_units
    return Row(
        name=f"quant/{case.source.name}/weights_mb",
        value=int8_mb,
        unit="MB",
        baselines={"fp32": float_mb, "bf16": float_mb / 2},
        note=f"the {case.name} decoder's tensors, {units} units; "
        f"{100 * (1 - int8_mb / float_mb):.1f} % less than fp32; in bf16: "
        f"{', '.join(case.kept) or 'no layer'}",
    )


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"({interval[0]:.4f} to {interval[1]:.4f})"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "too few trials for an interval"
    return f"{100 * LEVEL:.0f} % interval {interval[0]:.4f} to {interval[1]:.4f}"
