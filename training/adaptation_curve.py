"""Measures what adapting saves: R2 after k trials of a new recording, adapted and from scratch.

bazel run //training:adaptation_curve -- --model=decoder --session=new.npz --output=curve

For every number of trials and every split, one decoder is adapted and one of the same shape is
trained from scratch, on the same trials and for as many steps. Finished fits are kept in the output
folder: a run that was killed goes on when it is run again, and numbers of trials and splits can be
added later.
"""

import json
from pathlib import Path

from absl import flags
from tqdm import tqdm

from cortex import cli
from cortex.errors import InputError
from cortex.session import Session
from tools.measured.command_line import command_line
from tools.measured.table import measured_here, write
from training import adapt_flags
from training.adaptation.adaptation_config import adaptation_recipe
from training.adaptation.adapted_candidate import AdaptedCandidate
from training.adaptation.curve import Curve
from training.adaptation.curve_report import as_text, draw, measured_rows
from training.adaptation.source import open_on_grid, open_source
from training.comparison.fit_log import FitLog
from training.comparison.workers import Workplace, performed
from training.fitting.provenance import session_digest

OUTPUT = flags.DEFINE_string("output", None, "folder of the fits and the results", required=True)
CURVE = flags.DEFINE_list("curve", "1,10,50,all", "numbers of trials")
SPLITS = flags.DEFINE_list("splits", "0,1,2,3,4", "seeds of the splits by trial")
AT_ONCE = flags.DEFINE_integer("at_once", 1, "fits that share the device in turns", 1)
PROCESSES = flags.DEFINE_integer("processes", 1, "processes that share the fits", 1)
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")
ROWS = flags.DEFINE_string("rows", None, "prefix of its rows, as in adapt/mihi; default: adapt/ID")
adapt_flags.define()


def main(argv: list[str]) -> None:
    """Does the fits that are not done yet, and shows the curve that all of them make."""
    cli.no_arguments(argv)
    model, recordings = adapt_flags.source_paths()
    source = open_source(model, recordings)
    session = open_on_grid(Path(flags.FLAGS.session), source.checkpoint)
    session.require_behavior()
    curve = Curve(
        session,
        AdaptedCandidate(config=adaptation_recipe(session, 1), model=model, recordings=recordings),
        lambda n_trials: adapt_flags.config(session, n_trials),
        ks=[None if k == "all" else _number("curve", k, least=1) for k in CURVE.value],
        splits=[_number("splits", seed, least=0) for seed in SPLITS.value],
    )
    output = Path(OUTPUT.value)
    log = FitLog(output)
    _do(curve, session, log)
    points = curve.points(log)
    title = f"{session.session_id}: R2 on held-out trials, from {source.checkpoint.name}"
    print(as_text(title, points))
    content = {
        "command": _command(),
        "session": {"session_id": session.session_id, "digest": session_digest(session)},
        "source": {"digest": source.checkpoint.digest, "recordings": source.digests},
        "points": [point.to_json() for point in points],
    }
    (output / "curve.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(points, output / "curve.png", title=title)
    print(f"wrote {output / 'curve.json'}, {output / 'curve.png'}")
    if MEASURED.value:
        prefix = ROWS.value or f"adapt/{session.session_id}"
        rows = measured_rows(prefix, points)
        table = measured_here(prefix.replace("/", "_"), rows, command=_command())
        write(table, Path(MEASURED.value))


def _do(curve: Curve, session: Session, log: FitLog) -> None:
    todo = [(key, job) for key, job in curve.jobs() if key not in log]
    device = flags.FLAGS.device
    workplace = Workplace(device=device, at_once=AT_ONCE.value, processes=PROCESSES.value)
    with tqdm(total=len(todo), desc="fits", unit="fit", disable=not todo) as bar:
        for outcome in performed(todo, [session], workplace):
            log.add(outcome)
            bar.set_postfix_str(f"{outcome.kind} {outcome.r2:.3f}", refresh=False)
            bar.update()


def _number(flag: str, text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        also = ", or all" if flag == "curve" else ""
        raise InputError(f"--{flag} has {text!r}, expected whole numbers from {least} on{also}")
    return int(text)


def _command() -> str:
    return command_line(
        "//training:adaptation_curve",
        files=("model", "session", "source_session"),
        places=("output", "measured"),
    )


if __name__ == "__main__":
    cli.run(main)
