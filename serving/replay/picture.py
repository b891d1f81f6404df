"""Draws decoded against recorded velocity."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cortex.session import Session
from serving.replay.replay import ReplayedTrial

RECORDED, DECODED = "#404040", "#d1495b"
TRIALS = 6


def draw(session: Session, replayed: Sequence[ReplayedTrial], path: Path, *, title: str) -> None:
    """Writes a PNG of the first few trials, x above y, on one velocity scale.

    Args:
        session: the recording.
        replayed: decoded trials; at least one.
        path: file to write.
        title: line above the panels.
    """
    shown = replayed[:TRIALS]
    figure = Figure(figsize=(2.6 * len(shown) + 1.2, 5.0), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False, sharey=True, sharex="col")
    for column, trial in enumerate(shown):
        start, stop = (
            int(b[trial.trial]) for b in (session.trials.start_bin, session.trials.stop_bin)
        )
        behavior = session.behavior
        lo, hi = np.searchsorted(behavior.time_bin, (start, stop))
        recorded_s = (behavior.time_bin[lo:hi] - start + 0.5) * session.grid.bin_s
        gaps = np.flatnonzero(np.diff(behavior.time_bin[lo:hi]) > 1) + 1
        decoded_s = (np.arange(len(trial.velocity)) + 1) * session.grid.step_s
        for row, axis in enumerate("xy"):
            panel = panels[row, column]
            # Broken where nothing was recorded, so that no line is drawn across a gap.
            panel.plot(
                np.insert(recorded_s, gaps, np.nan),
                np.insert(behavior.velocity[lo:hi, row], gaps, np.nan),
                color=RECORDED,
                linewidth=2.0,
                label="recorded",
            )
            panel.plot(
                decoded_s,
                trial.velocity[:, row],
                color=DECODED,
                linewidth=1.4,
                marker="o" if len(decoded_s) < 40 else "",
                markersize=3,
                label="decoded",
            )
            panel.axhline(0.0, color="#cccccc", linewidth=0.8, zorder=0)
            panel.spines[["top", "right"]].set_visible(False)
            if column == 0:
                panel.set_ylabel(f"{axis} velocity ({behavior.unit})")
        panels[0, column].set_title(f"trial {trial.trial}", fontsize=10)
        panels[1, column].set_xlabel("time in trial (s)")
    panels[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
