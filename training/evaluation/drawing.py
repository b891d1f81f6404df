"""Pictures of decoded trials: velocities over time, and the hand's paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cortex.events import IntArray
from cortex.session import FloatArray, Session
from training.samples.targets import trial_targets

VELOCITY_TRIALS = 6
PATH_TRIALS = 8
LEAST_WIDTH = 7.5
"""Inches that a title needs."""

RECORDED = {"color": "#404040", "linewidth": 2.2, "label": "recorded"}
# In the order of the decoders given.
DECODED = ({"color": "#d1495b", "linewidth": 1.5}, {"color": "#2f7fb8", "linewidth": 1.1})


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Velocity over a part of a trial.

    Attributes:
        time_s: (n,) time from the trial's start to the middle of each velocity's bin, ascending.
        velocity: (n, 2).
    """

    time_s: FloatArray
    velocity: FloatArray


def step_trace(session: Session, velocity: FloatArray) -> Trace:
    """Velocity (steps, 2) decoded at the end of every step of a trial."""
    return Trace(time_s=_last_bin_s(session, np.arange(len(velocity))), velocity=velocity)


def target_trace(session: Session, trial: int, velocity: FloatArray) -> Trace:
    """Velocity (n, 2) decoded at a trial's target steps."""
    step, _ = trial_targets(session, trial)
    return Trace(time_s=_last_bin_s(session, step), velocity=velocity)


def draw_velocity(
    session: Session,
    trials: Sequence[int],
    decoded: Mapping[str, Sequence[Trace]],
    path: Path,
    *,
    title: str,
) -> None:
    """Writes a PNG of the first few trials, x above y, on one velocity scale.

    Args:
        session: the recording.
        trials: which trials; at least one.
        decoded: by a decoder's name, a trace for each trial; at most two decoders.
        path: file to write.
        title: line above the panels.
    """
    shown = trials[:VELOCITY_TRIALS]
    width = max(2.5 * len(shown) + 1.4, LEAST_WIDTH)
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False, sharey=True, sharex="col")
    for column, trial in enumerate(shown):
        recorded = _recorded(session, trial)
        for row, axis in enumerate("xy"):
            panel = panels[row, column]
            panel.axhline(0.0, color="#cccccc", linewidth=0.8, zorder=0)
            _line(panel, recorded, row, session.grid.bin_s, RECORDED)
            for (name, traces), style in zip(decoded.items(), DECODED, strict=False):
                trace = traces[column]
                marker = {"marker": "o", "markersize": 3} if len(trace.time_s) < 40 else {}
                _line(panel, trace, row, session.grid.step_s, {**style, **marker, "label": name})
            panel.spines[["top", "right"]].set_visible(False)
            if column == 0:
                panel.set_ylabel(f"{axis} velocity ({session.behavior.unit})")
        panels[0, column].set_title(f"trial {trial}", fontsize=10)
        panels[1, column].set_xlabel("time in trial (s)")
    _finish(figure, panels[0, 0], title, path)


def draw_paths(
    session: Session,
    trials: Sequence[int],
    decoded: Mapping[str, Sequence[FloatArray]],
    path: Path,
    *,
    title: str,
) -> None:
    """Writes a PNG of the first few trials' paths, all on one scale.

    A path is the sum of the velocities at the trial's target steps from its start, so that recorded
    and decoded paths leave out the same steps.

    Args:
        session: the recording.
        trials: which trials; at least one.
        decoded: by a decoder's name, velocity (n, 2) at each trial's target steps; at most two.
        path: file to write.
        title: line above the panels.
    """
    shown = trials[:PATH_TRIALS]
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    width = max(2.7 * columns + 0.8, LEAST_WIDTH)
    figure = Figure(figsize=(width, 2.7 * rows + 1.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    unit = session.behavior.unit.removesuffix("/s")
    styles = [{**style, "label": name} for name, style in zip(decoded, DECODED, strict=False)]
    reached: list[FloatArray] = []
    for place, trial in enumerate(shown):
        panel = panels.flat[place]
        paths = [_path(trial_targets(session, trial)[1], session)]
        paths += [_path(velocities[place], session) for velocities in decoded.values()]
        for one, style in zip(paths, (RECORDED, *styles), strict=True):
            panel.plot(*one.T, **style)
        reached += paths
        panel.plot(0.0, 0.0, "o", color="#404040", markersize=5, label="start")
        panel.set_title(f"trial {trial}", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    # One square for all panels, so that a millimetre is the same everywhere and each way.
    low, high = (edge(np.concatenate(reached), axis=0) for edge in (np.min, np.max))
    half = 0.53 * max(float((high - low).max()), 1e-3)
    middle = (low + high) / 2
    panels[0, 0].set(xlim=(middle[0] - half, middle[0] + half))
    panels[0, 0].set(ylim=(middle[1] - half, middle[1] + half))
    for panel in panels.flat:
        panel.set_aspect("equal")
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    for panel in panels[:, 0]:
        panel.set_ylabel(f"y ({unit})")
    for column in range(columns):
        panels[rows - 1, column].set_xlabel(f"x ({unit})")
    _finish(figure, panels[0, 0], title, path)


def _recorded(session: Session, trial: int) -> Trace:
    """Every label of a trial."""
    start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
    behavior = session.behavior
    lo, hi = np.searchsorted(behavior.time_bin, (start, stop))
    time_s = (behavior.time_bin[lo:hi] - start + 0.5) * session.grid.bin_s
    return Trace(time_s=time_s.astype(np.float32), velocity=behavior.velocity[lo:hi])


def _last_bin_s(session: Session, step: IntArray) -> FloatArray:
    """Time from a trial's start to the middle of each step's last bin."""
    grid = session.grid
    return ((step + 1) * grid.step_s - grid.bin_s / 2).astype(np.float32)


def _line(panel: Axes, trace: Trace, row: int, apart_s: float, style: Mapping[str, Any]) -> None:
    """One component over time, broken where points are further apart than they should be."""
    gaps = np.flatnonzero(np.diff(trace.time_s) > 1.5 * apart_s) + 1
    panel.plot(
        np.insert(trace.time_s, gaps, np.nan),
        np.insert(trace.velocity[:, row], gaps, np.nan),
        **style,
    )


def _path(velocity: FloatArray, session: Session) -> FloatArray:
    """(n + 1, 2) where the velocity of each step leads, from nought."""
    return np.cumsum(np.pad(velocity, ((1, 0), (0, 0))) * session.grid.step_s, axis=0)


def _finish(figure: Figure, panel: Axes, title: str, path: Path) -> None:
    """Legend and title above the panels, where they cover nothing; then the file."""
    handles, labels = panel.get_legend_handles_labels()
    figure.suptitle(title, fontsize=11)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)
