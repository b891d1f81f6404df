"""Trains a decoder on one or many recordings and writes its checkpoint directory.

bazel run //training:train -- --session=recording.nwb --output=decoder

With --processes=N, N processes of this machine train the one model together, its parameters sharded
among them (FSDP2; gloo on CPUs, NCCL with a GPU each):

bazel run //training:train -- --session=recording.nwb --output=decoder --device=cuda --processes=8

From a checkout, torchrun starts them as well, on many machines too:

torchrun --nproc_per_node=8 -m training.train --session=recording.nwb --output=decoder --device=cuda

A run with --run_folder that was killed goes on from its last save when it is started again with the
same flags; the number of processes may be another one.
"""

import sys
from pathlib import Path

from absl import flags

from cortex import cli
from cortex.checkpoint import load_checkpoint, save_checkpoint
from training import train_flags
from training.evaluation.scoring import score
from training.fitting.launch import launch
from training.fitting.processes import joined
from training.fitting.run_log import RunLog
from training.fitting.train_decoder import TrainingSession, train_decoder
from training.progress import progress_bar
from training.samples.splits import split_session

SESSION = flags.DEFINE_multi_string(
    "session", None, "recording: .nwb or binned .npz; repeat it for more", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "checkpoint directory to write", required=True)
INIT_FROM = flags.DEFINE_string("init_from", None, "checkpoint directory to start from")
RUN_FOLDER = flags.DEFINE_string(
    "run_folder", None, "keeps the run's state and log; a killed run goes on from here"
)
SAVE_EVERY = flags.DEFINE_integer("save_every", 200, "steps between saves of the state", 1)
PROCESSES = flags.DEFINE_integer("processes", 1, "processes of this machine that train together", 1)
TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "log to TensorBoard, in the run folder")
WANDB = flags.DEFINE_bool("wandb", False, "log to Weights & Biases, offline, in the run folder")
train_flags.define()
flags.register_validator(  # type: ignore[no-untyped-call]
    "run_folder",
    lambda folder: folder is not None or not (flags.FLAGS.tensorboard or flags.FLAGS.wandb),
    "--tensorboard and --wandb need --run_folder",
)


def main(argv: list[str]) -> None:
    """Trains in as many processes as were asked for."""
    cli.no_arguments(argv)
    launch(_train, argv, PROCESSES.value)


def _train(argv: list[str]) -> None:
    """Splits by trial, trains on one part, and prints R2 on the other."""
    sessions = [train_flags.session(Path(path)) for path in SESSION.value]
    config = train_flags.train_config(sessions[0])
    split_seed = flags.FLAGS.split_seed
    splits = [split_session(s, split_seed) for s in sessions]
    init_from = load_checkpoint(Path(INIT_FROM.value)) if INIT_FROM.value else None
    if init_from:
        init_from.require_float()
    run_folder = Path(RUN_FOLDER.value) if RUN_FOLDER.value else None
    with (
        joined(flags.FLAGS.device) as processes,
        progress_bar(config, shown=processes.first) as show,
        RunLog(
            run_folder if processes.first else None,
            tensorboard=TENSORBOARD.value,
            wandb=WANDB.value,
        ) as log,
    ):

        def on_report(step: int, values: dict[str, float]) -> None:
            show(step, values)
            log.write(step, values)

        checkpoint = train_decoder(
            [
                TrainingSession(session=s, trials=train)
                for s, (train, _) in zip(sessions, splits, strict=True)
            ],
            config,
            processes=processes,
            init_from=init_from,
            run_folder=run_folder,
            save_every=SAVE_EVERY.value,
            card={
                "arguments": sys.argv[1:],
                "split_seed": split_seed,
                "test_trials": [test for _, test in splits],
            },
            on_report=on_report,
        )
    if not processes.first:
        return
    lines = []
    for session, (train, test) in zip(sessions, splits, strict=True):
        scores = score(checkpoint, session, train, test)
        checkpoint.card.setdefault("r2", {})[session.session_id] = scores.r2
        checkpoint.card.setdefault("r2_wiener", {})[session.session_id] = scores.r2_wiener
        lines.append(
            f"{session.session_id}: held-out velocity R2 {scores.r2:.3f} "
            f"(Wiener filter {scores.r2_wiener:.3f})"
        )
    digest = save_checkpoint(checkpoint, Path(OUTPUT.value))
    print("\n".join(lines))
    print(f"wrote {OUTPUT.value}, model {config.size}, weights {digest[:12]}")


if __name__ == "__main__":
    cli.run(main)
