"""A replay's figures as rows of a measured table."""

from pathlib import Path

from serving.replay.report import Report
from tools.measured.table import Row, measured_here, write


def write_measured(report: Report, folder: Path, *, command: str) -> None:
    """Writes the table demo_SESSION into a folder, as JSON and as text.

    Args:
        report: the figures.
        folder: where the table goes.
        command: what was run, as a reader would type it.
    """
    at = f"demo/{report.session}"
    pace = "at the recording's pace" if report.paced else "without waiting"
    what = f"{report.model}, {report.trials} held-out trials, {report.frames} steps {pace}"
    rows = [
        Row(
            name=f"{at}/r2",
            value=report.r2,
            unit="R2",
            baselines={"Wiener filter": report.r2_wiener},
            note=what,
        ),
        Row(
            name=f"{at}/streaming_error",
            value=report.streaming_error,
            unit="of the largest velocity",
            note="largest difference between streamed and offline",
        ),
        Row(
            name=f"{at}/spikes_to_velocity",
            value=report.p50_ms,
            unit="ms",
            p99=report.p99_ms,
            note="median; client and server on one machine",
        ),
    ]
    write(measured_here(f"demo_{report.session}", rows, command=command), folder)
