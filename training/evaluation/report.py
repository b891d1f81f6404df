"""An evaluation for readers: a table for the terminal, the same in Markdown, and JSON."""

from collections.abc import Sequence
from typing import Any

from training.evaluation.evaluation import Evaluation
from training.evaluation.figures import Difference, Figure, ProtocolResult
from training.evaluation.intervals import LEVEL, RESAMPLES, Interval

INTERVAL = f"{100 * LEVEL:.0f} % interval"
HEADER = ("protocol", "decoder", "R2", INTERVAL, "trials", "points", "spikes seen")
RIGHT = (False, False, True, True, True, True, False)

EXPLAINED = {
    "per_bin": "velocity at the end of every step of the held-out trials",
    "benchmark": "Neural Latents Benchmark: 5 ms bins around the onset of movement",
    "onset": "one velocity a trial, at the onset of movement",
}


def as_text(evaluation: Evaluation) -> str:
    """The report for a terminal."""
    rows = [HEADER, *_rows(evaluation)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = []
    for number, row in enumerate(rows):
        if number and row[0]:
            lines.append("")
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, RIGHT, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*_facts(evaluation), "", *lines, "", *_notes(evaluation)])


def as_markdown(evaluation: Evaluation) -> str:
    """The report as a file."""
    lines = [
        f"# {evaluation.model} on {evaluation.session_id}",
        "",
        *(f"- {fact}" for fact in _facts(evaluation)),
        "",
        _markdown_row(HEADER),
        _markdown_row(["---:" if right else "---" for right in RIGHT]),
        *(_markdown_row(row) for row in _rows(evaluation)),
        "",
        *(f"- {note}" for note in _notes(evaluation)),
    ]
    return "\n".join(lines) + "\n"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The report for programs. R2 is the mean over x and y of that of all points pooled."""
    oracle = evaluation.oracle
    return {
        "session": evaluation.session_id,
        "session_digest": evaluation.session_digest,
        "units": evaluation.units,
        "trials_trained_on": evaluation.trained_on,
        "held_out_trials": list(evaluation.held_out_trials),
        "model": evaluation.model,
        "model_digest": evaluation.model_digest,
        "parameters": evaluation.parameters,
        "interval": {"level": LEVEL, "resamples": RESAMPLES, "drawn": "trials"},
        "streaming_error": evaluation.streaming_error,
        "protocols": {result.protocol: _protocol(result) for result in evaluation.protocols},
        "oracle": vars(oracle) if oracle else None,
    }


def _protocol(result: ProtocolResult) -> dict[str, Any]:
    if result.not_run:
        return {"about": EXPLAINED[result.protocol], "not_run": result.not_run}
    return {
        "about": EXPLAINED[result.protocol],
        "left_out_trials": result.left_out_trials,
        "figures": {
            figure.key: {
                **{name: value for name, value in vars(figure).items() if name != "key"},
                "causal": figure.causal,
                "sees": figure.sees,
            }
            for figure in result.figures
        },
        "differences": [vars(difference) for difference in result.differences],
    }


def _rows(evaluation: Evaluation) -> list[Sequence[str]]:
    return [row for result in evaluation.protocols for row in _protocol_rows(result)]


def _protocol_rows(result: ProtocolResult) -> list[Sequence[str]]:
    if result.not_run:
        return [(result.protocol, "not run, see below", "", "", "", "", "")]
    names = {figure.key: figure.decoder for figure in result.figures}
    rows = [
        *(_figure_row(figure) for figure in result.figures),
        *(_difference_row(difference, names) for difference in result.differences),
    ]
    return [(result.protocol if i == 0 else "", *row) for i, row in enumerate(rows)]


def _figure_row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.decoder,
        f"{figure.r2:.3f}",
        _interval(figure.interval, ""),
        f"{figure.trials:,}",
        f"{figure.points:,}",
        figure.sees,
    )


def _difference_row(difference: Difference, names: dict[str, str]) -> tuple[str, ...]:
    return (
        f"{names[difference.decoder]} - {names[difference.baseline]}",
        f"{difference.r2:+.3f}",
        _interval(difference.interval, "+"),
        "",
        "",
        "",
    )


def _interval(interval: Interval | None, sign: str) -> str:
    return "" if interval is None else f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"


def _facts(evaluation: Evaluation) -> list[str]:
    return [
        f"recording: {evaluation.session_id}, {evaluation.units} units; "
        f"{evaluation.trained_on} trials trained on, "
        f"{len(evaluation.held_out_trials)} held out",
        f"model: {evaluation.model}, {evaluation.parameters / 1e6:.2f} M parameters, "
        f"weights {evaluation.model_digest[:12]}",
    ]


def _notes(evaluation: Evaluation) -> list[str]:
    notes = [
        f"{result.protocol}: {EXPLAINED[result.protocol]}"
        + (f"; {result.left_out_trials} trials without it" if result.left_out_trials else "")
        + (f"; not run: {result.not_run}" if result.not_run else "")
        for result in evaluation.protocols
    ]
    notes += [
        "spikes seen: counted from the moment whose velocity is decoded; no decoder in real time "
        "has FUTURE ones",
        f"intervals: {RESAMPLES:,} bootstrap draws of the held-out trials; those of a difference "
        "are paired",
        f"streamed - offline: {evaluation.streaming_error:.1e} of the largest velocity",
    ]
    if oracle := evaluation.oracle:
        shares = ", ".join(
            f"{name} {100 * oracle.share[key]:.1f} % (R2 {oracle.r2[key]:.3f})"
            for key, name in (("cortex", f"Cortex {evaluation.model}"), ("wiener", "Wiener filter"))
        )
        notes.append(
            f"share of the causal oracle, R2 {oracle.r2_oracle:.3f} on {oracle.trials} of the "
            f"trials: {shares}"
        )
    return notes


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
