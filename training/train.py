"""Trains a decoder on a recording and writes its checkpoint directory.

bazel run //training:train -- --session=recording.nwb --output=decoder
"""

from pathlib import Path

from absl import flags

from cortex import cli
from cortex.checkpoint import save_checkpoint
from training import train_flags
from training.progress import progress_bar
from training.scoring import score
from training.splits import split_trials
from training.train_decoder import train_decoder

SESSION = flags.DEFINE_string("session", None, "recording: .nwb or binned .npz", required=True)
OUTPUT = flags.DEFINE_string("output", None, "checkpoint directory to write", required=True)
train_flags.define()


def main(argv: list[str]) -> None:
    """Splits by trial, trains on one part, and prints R2 on the other."""
    cli.no_arguments(argv)
    session = train_flags.session(Path(SESSION.value))
    config = train_flags.train_config(session)
    split_seed = flags.FLAGS.split_seed
    train, test = split_trials(len(session.trials), split_seed)
    with progress_bar(config) as on_step:
        card = {"split_seed": split_seed, "test_trials": test}
        checkpoint = train_decoder(session, train, config, card=card, on_step=on_step)
    scores = score(checkpoint, session, train, test)
    checkpoint.card["r2"], checkpoint.card["r2_wiener"] = scores.r2, scores.r2_wiener
    digest = save_checkpoint(checkpoint, Path(OUTPUT.value))
    print(f"held-out velocity R2 {scores.r2:.3f} (Wiener filter {scores.r2_wiener:.3f})")
    print(f"wrote {OUTPUT.value}, model {config.size}, weights {digest[:12]}")


if __name__ == "__main__":
    cli.run(main)
