"""Scores a checkpoint on a recording's held-out trials, beside the Wiener filter.

bazel run //training:evaluate -- --session=recording.nwb --model=decoder
"""

import json
from dataclasses import asdict
from pathlib import Path

from absl import flags

from cortex import cli
from cortex.checkpoint import load_checkpoint
from cortex.data.open_session import open_session
from cortex.errors import InputError
from training.evaluation.scoring import score
from training.fitting.provenance import session_digest
from training.samples.splits import split_trials

SESSION = flags.DEFINE_string("session", None, "recording: .nwb or binned .npz", required=True)
MODEL = flags.DEFINE_string("model", None, "checkpoint directory", required=True)
REPORT = flags.DEFINE_string("report_json", None, "also write the scores to this file")


def main(argv: list[str]) -> None:
    """Scores on the split that the model card names, so that no training trial is scored."""
    cli.no_arguments(argv)
    checkpoint = load_checkpoint(Path(MODEL.value))
    session = open_session(Path(SESSION.value), checkpoint.model.config.grid)
    card = checkpoint.card
    if session_digest(session) not in [s["digest"] for s in card.get("sessions", ())]:
        raise InputError(
            f"{SESSION.value}: not a recording that {MODEL.value} was trained on, so its held-out "
            "trials are unknown"
        )
    train, test = split_trials(len(session.trials), card["split_seed"])
    scores = score(checkpoint, session, train, test)
    print(f"{'held-out trials':<24}{len(test):>8}")
    print(f"{'labelled steps':<24}{scores.points:>8}")
    print(f"{'R2, ' + checkpoint.name:<24}{scores.r2:>8.3f}")
    print(f"{'R2, Wiener filter':<24}{scores.r2_wiener:>8.3f}")
    if REPORT.value:
        report = {"model": checkpoint.digest, "session": session.session_id, **asdict(scores)}
        Path(REPORT.value).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
