"""Scores a checkpoint on a recording's held-out trials, beside the Wiener filter.

bazel run //training:evaluate -- --session=recording.nwb --model=decoder --output=scores
"""

from pathlib import Path

from absl import flags

from cortex import cli
from cortex.checkpoint import load_checkpoint
from cortex.data.open_session import open_session
from tools.measured.command_line import command_line
from tools.measured.table import measured_here, write
from training.evaluation.evaluation import evaluate
from training.evaluation.measured_rows import measured_rows
from training.evaluation.output_folder import write_folder
from training.evaluation.report import as_text
from training.fitting.provenance import session_digest
from training.oracle.ceiling import read_ceiling

SESSION = flags.DEFINE_string("session", None, "recording: .nwb or binned .npz", required=True)
SERIES = flags.DEFINE_string("series", None, "the recorded series, where training had --series")
MODEL = flags.DEFINE_string("model", None, "checkpoint directory", required=True)
OUTPUT = flags.DEFINE_string(
    "output", None, "folder for evaluation.json, evaluation.md, decoded.png and paths.png"
)
LAG_MS = flags.DEFINE_float(
    "lag_ms",
    100.0,
    "benchmark protocol: from spikes to velocity; 100 for MC_Maze, 120 for its large, medium and "
    "small sets, 140 for MC_RTT, -20 for Area2_Bump",
)
ORACLE = flags.DEFINE_string("oracle", None, "JSON of training:simulated_ceiling, for shares of it")
DEVICE = flags.DEFINE_string("device", "cpu", "where Cortex runs: cpu or cuda")
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")
ROWS = flags.DEFINE_string("rows", None, "prefix of its rows, such as r2/chewie; default: r2/ID")


def main(argv: list[str]) -> None:
    """Scores on the split that the model card names, so that no training trial is scored."""
    cli.no_arguments(argv)
    checkpoint = load_checkpoint(Path(MODEL.value))
    grid = checkpoint.model.config.grid
    session = open_session(Path(SESSION.value), grid, series=SERIES.value)
    ceiling = (
        read_ceiling(Path(ORACLE.value), digest=session_digest(session)) if ORACLE.value else None
    )
    evaluation, decoded = evaluate(
        checkpoint, session, lag_s=LAG_MS.value / 1000, ceiling=ceiling, device=DEVICE.value
    )
    print(as_text(evaluation))
    if OUTPUT.value:
        written = write_folder(evaluation, session, decoded, Path(OUTPUT.value))
        print(f"\nwrote to {OUTPUT.value}: {', '.join(written)}")
    if MEASURED.value:
        rows = measured_rows(evaluation, ROWS.value or f"r2/{evaluation.session_id}")
        name = f"evaluate_{evaluation.session_id}"
        write(measured_here(name, rows, command=_command()), Path(MEASURED.value))


def _command() -> str:
    return command_line(
        "//training:evaluate",
        files=("session", "model", "oracle"),
        places=("output", "measured"),
    )


if __name__ == "__main__":
    cli.run(main)
