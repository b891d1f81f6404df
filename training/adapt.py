"""Adapts a decoder to a new recording from a few of its trials.

bazel run //training:adapt -- --model=decoder --session=new.nwb --output=adapted --trials=10

New units learn first, with the rest of the network fixed, and then all weights. With
--source_session=recording.nwb, a recording that the model was trained on, new units start as those
of its units that are tuned alike, which is what matters most when trials are few.
"""

import dataclasses
import sys
from pathlib import Path

from absl import flags

from cortex import cli
from cortex.checkpoint import save_checkpoint
from training import adapt_flags
from training.adaptation.adapt_decoder import adapt_decoder
from training.adaptation.first_trials import first_trials
from training.adaptation.keep_source import with_units_of
from training.adaptation.source import open_on_grid, open_source
from training.adaptation.unseen import require_unseen
from training.evaluation.scoring import score
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession
from training.progress import progress_bar
from training.samples.splits import split_session

OUTPUT = flags.DEFINE_string("output", None, "checkpoint directory to write", required=True)
TRIALS = flags.DEFINE_integer(
    "trials", None, "learn from the first so many of the split's training trials; default: all"
)
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "seed of the split by trial")
KEEP_SOURCE = flags.DEFINE_bool(
    "keep_source", False, "keep the source's units in the vocabulary beside the new ones"
)
adapt_flags.define()


def main(argv: list[str]) -> None:
    """Splits by trial, adapts to a few trials of one part, and prints R2 on the other."""
    cli.no_arguments(argv)
    source = open_source(*adapt_flags.source_paths())
    session = open_on_grid(Path(flags.FLAGS.session), source.checkpoint)
    session.require_behavior()
    train, test = split_session(session, SPLIT_SEED.value)
    require_unseen(source, session, test)
    trials = first_trials(session, train, TRIALS.value)
    config = adapt_flags.config(session, len(trials))
    bar = TrainConfig(
        size=source.checkpoint.name, fit=dataclasses.replace(config.units, steps=config.steps)
    )
    with progress_bar(bar) as show:
        adapted = adapt_decoder(
            source.checkpoint,
            TrainingSession(session=session, trials=trials),
            config,
            alike=source.alike,
            device=flags.FLAGS.device,
            card={
                "arguments": sys.argv[1:],
                "split_seed": SPLIT_SEED.value,
                "test_trials": [test],
            },
            on_report=show,
        )
    if KEEP_SOURCE.value:
        adapted = with_units_of(source.checkpoint, adapted)
    scores = score(adapted, session, trials, test)
    adapted.card["r2"] = {session.session_id: scores.r2}
    adapted.card["r2_wiener"] = {session.session_id: scores.r2_wiener}
    digest = save_checkpoint(adapted, Path(OUTPUT.value))
    print(
        f"{session.session_id}: adapted to {len(trials)} trials, held-out velocity R2 "
        f"{scores.r2:.3f} (Wiener filter on the same trials {scores.r2_wiener:.3f})"
    )
    print(f"wrote {OUTPUT.value}, model {adapted.name}, weights {digest[:12]}")


if __name__ == "__main__":
    cli.run(main)
