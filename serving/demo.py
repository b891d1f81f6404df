"""Trains a decoder, serves it, and decodes held-out trials through the real server.

bazel run //serving:demo [-- --session=recording.nwb]
"""

import json
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from absl import flags

from cortex import cli
from cortex.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cortex.data.nwb_writer import write_nwb
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.session import Session
from cortex.vocabulary import to_vocabulary
from serving.client.client import Client
from serving.replay.measured import write_measured
from serving.replay.replay import ReplayedTrial, replay
from serving.replay.report import Report, as_text, make_report
from serving.replay.server_process import server_process
from tools.measured.command_line import command_line
from training import train_flags
from training.evaluation.drawing import draw_velocity, step_trace
from training.evaluation.offline_decoding import decode_trials
from training.fitting.processes import Processes
from training.fitting.train_decoder import TrainingSession, train_decoder
from training.progress import progress_bar
from training.rivals.wiener import WienerConfig, WienerFilter
from training.samples.splits import split_session

SESSION = flags.DEFINE_string("session", None, "recording, .nwb or .npz; default: a simulated one")
OUTPUT = flags.DEFINE_string("output", "cortex-demo", "directory for all that the demo writes")
FAST = flags.DEFINE_bool("fast", False, "replay every held-out trial without waiting")
REPLAY_S = flags.DEFINE_float("replay_s", 45.0, "seconds of recording to replay at its pace", 0.1)
KEEP_SERVING = flags.DEFINE_bool("keep_serving", False, "leave the server up until Ctrl-C")
PORT = flags.DEFINE_integer("port", 0, "port of the server; 0 picks one", 0, 65535)
REPORT = flags.DEFINE_string("report_json", None, "also write the figures to this file")
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")
train_flags.define()


def main(argv: list[str]) -> None:
    """One recording, from file to velocity."""
    cli.no_arguments(argv)
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    session = _session(output)
    train, test = split_session(session, flags.FLAGS.split_seed)
    print(
        f"[2/4] training on {len(train)} of {len(session.trials)} trials, "
        f"{len(session.unit_ids)} units",
        flush=True,
    )
    checkpoint = _train(session, train, test, output / "model")
    wiener = WienerFilter(WienerConfig()).fit(session, train)
    chosen = test if FAST.value else _within(session, test, REPLAY_S.value)
    print(
        f"[3/4] serving it, and streaming {len(chosen)} of {len(test)} held-out trials", flush=True
    )
    device = flags.FLAGS.device
    log = output / "server.log"
    with server_process(output / "model", log=log, device=device, port=PORT.value) as url:
        replayed = _replay(url, session, checkpoint, chosen)
        report = make_report(
            session,
            checkpoint,
            replayed,
            decode_trials(checkpoint, session, chosen),
            wiener.predict(session, chosen),
            paced=not FAST.value,
            device=device,
        )
        _show(report, session, replayed, output)
        if KEEP_SERVING.value:
            print(f"serving on {url} until Ctrl-C", flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _session(output: Path) -> Session:
    if SESSION.value:
        print(f"[1/4] reading {SESSION.value}", flush=True)
        return train_flags.session(Path(SESSION.value))
    path = output / "session.nwb"
    print(f"[1/4] simulating a session of maze reaches to {path}", flush=True)
    write_nwb(simulate(SimulatorConfig()), path)
    return train_flags.session(path)


def _train(session: Session, train: list[int], test: list[int], folder: Path) -> Checkpoint:
    config = train_flags.train_config(session)
    card = {"split_seed": flags.FLAGS.split_seed, "test_trials": [test]}
    with progress_bar(config) as on_report:
        fitted = train_decoder(
            [TrainingSession(session=session, trials=train)],
            config,
            processes=Processes(device=torch.device(flags.FLAGS.device)),
            card=card,
            on_report=on_report,
        )
    save_checkpoint(fitted, folder)
    # What is scored below is what the server will load.
    return load_checkpoint(folder)


def _within(session: Session, trials: list[int], seconds: float) -> list[int]:
    """The first trials that last so long together; at least one."""
    spans = session.trials.stop_bin[trials] - session.trials.start_bin[trials]
    count = int(np.searchsorted(np.cumsum(spans) * session.grid.bin_s, seconds, side="right"))
    return trials[: max(count, 1)]


def _replay(
    url: str, session: Session, checkpoint: Checkpoint, trials: list[int]
) -> list[ReplayedTrial]:
    events = to_vocabulary(session, checkpoint.unit_ids)
    with Client(url) as client:
        return replay(client, session, events, trials, paced=not FAST.value)


def _show(report: Report, session: Session, replayed: list[ReplayedTrial], output: Path) -> None:
    picture = output / "decoded.png"
    title = f"{report.session}: {report.model} streamed, R2 {report.r2:.3f}"
    traces = {"decoded": [step_trace(session, trial.velocity) for trial in replayed]}
    draw_velocity(session, [trial.trial for trial in replayed], traces, picture, title=title)
    print(f"[4/4] results\n\n{as_text(report)}\n\npicture       {picture}", flush=True)
    if REPORT.value:
        Path(REPORT.value).write_text(json.dumps(asdict(report), indent=1) + "\n")
    if MEASURED.value:
        write_measured(report, Path(MEASURED.value), command=_command())


def _command() -> str:
    return command_line(
        "//serving:demo", files=("session",), places=("output", "report_json", "measured")
    )


if __name__ == "__main__":
    cli.run(main)
