"""Writes an evaluation: its JSON, its table and its pictures."""

import json
from pathlib import Path

from cortex.errors import InputError
from cortex.session import Session
from training.evaluation.drawing import draw_paths, draw_velocity, target_trace
from training.evaluation.evaluation import Evaluation
from training.evaluation.per_bin import PerBin
from training.evaluation.report import as_json, as_markdown


def write_folder(
    evaluation: Evaluation, session: Session, decoded: PerBin, folder: Path
) -> tuple[str, ...]:
    """Writes the files and returns their names.

    Args:
        evaluation: the figures.
        session: the recording.
        decoded: the velocities behind the per-bin figures.
        folder: where the files go; made if it is not there.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(as_json(evaluation), indent=1) + "\n")
        (folder / "evaluation.md").write_text(as_markdown(evaluation))
        _draw(evaluation, session, decoded, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    return "evaluation.json", "evaluation.md", "decoded.png", "paths.png"


def _draw(evaluation: Evaluation, session: Session, decoded: PerBin, folder: Path) -> None:
    labelled = [i for i, true in enumerate(decoded.true) if len(true)]
    trials = [decoded.trials[i] for i in labelled]
    velocity = {
        f"Cortex {evaluation.model}": [decoded.streamed[i] for i in labelled],
        "Wiener filter": [decoded.wiener[i] for i in labelled],
    }
    traces = {
        name: [target_trace(session, *pair) for pair in zip(trials, values, strict=True)]
        for name, values in velocity.items()
    }
    what = f"{evaluation.session_id}, held-out trials"
    figure = evaluation.protocols[0].figures[0]
    title = f"{what}: {figure.decoder}, velocity R2 {figure.r2:.3f}"
    draw_velocity(session, trials, traces, folder / "decoded.png", title=title)
    title = f"{what}: velocity added up from each trial's start"
    draw_paths(session, trials, velocity, folder / "paths.png", title=title)
