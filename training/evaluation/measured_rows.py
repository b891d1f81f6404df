"""An evaluation's figures as rows of a measured table."""

from tools.measured.table import Row
from training.evaluation.evaluation import Evaluation
from training.evaluation.figures import Figure
from training.evaluation.intervals import LEVEL


def measured_rows(evaluation: Evaluation, prefix: str) -> list[Row]:
    """Rows PREFIX/PROTOCOL/DECODER of every figure, each difference's in the note of its decoder.

    Args:
        evaluation: the figures.
        prefix: of the rows' names, such as "r2/chewie".
    """
    rows = []
    for result in evaluation.protocols:
        at = f"{prefix}/{result.protocol}"
        rows += [
            Row(name=f"{at}/{f.key}", value=f.r2, unit="R2", note=_note(f)) for f in result.figures
        ]
        for difference in result.differences:
            rows.append(
                Row(
                    name=f"{at}/{difference.decoder}_minus_{difference.baseline}",
                    value=difference.r2,
                    unit="R2",
                    note=_interval(difference.interval),
                )
            )
    rows.append(
        Row(
            name=f"{prefix}/streaming_error",
            value=evaluation.streaming_error,
            unit="of the largest velocity",
            note="largest difference between streamed and offline",
        )
    )
    if evaluation.oracle:
        note = f"on the oracle's {evaluation.oracle.trials} trials"
        rows.append(
            Row(
                name=f"{prefix}/oracle_causal",
                value=evaluation.oracle.r2_oracle,
                unit="R2",
                note=note,
            )
        )
        rows += [
            Row(
                name=f"{prefix}/oracle_share/{key}",
                value=share,
                unit="of the causal oracle's R2",
                note=note,
            )
            for key, share in evaluation.oracle.share.items()
        ]
    return rows


def _note(figure: Figure) -> str:
    parts = (
        figure.decoder,
        figure.sees,
        f"{figure.trials} trials, {figure.points} points",
        _interval(figure.interval),
    )
    return "; ".join(part for part in parts if part)


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * LEVEL:.0f} % interval {low:.3f} to {high:.3f}"
