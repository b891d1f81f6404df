"""Compares Cortex with a Wiener filter, a GRU and a Transformer, each tuned on the same budget.

bazel run //training:baselines -- --session=recording.npz --output=comparison

Every kind of decoder is tried in as many configurations, chosen by inner splits of the training
trials, and scored once on each split's test trials. Finished fits are kept in the output folder: a
run that was killed goes on when it is run again, and parts of a run (--kinds, --splits) may be done
in any order; the last one makes the tables.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from absl import flags
from tqdm import tqdm

from cortex import cli
from cortex.data.open_session import open_session
from cortex.errors import InputError
from cortex.session import Session
from tools.measured.command_line import command_line
from tools.measured.table import measured_here, write
from training.comparison.contest import Contest
from training.comparison.contestants import KINDS, Entry, contestants
from training.comparison.fit_log import FitLog
from training.comparison.report import as_text, measured_rows
from training.comparison.standings import Standing, standings
from training.comparison.workers import KeyedJob, Workplace, performed
from training.fitting.provenance import session_digest
from training.oracle.ceiling import Ceiling, read_ceiling

SESSION = flags.DEFINE_multi_string(
    "session", None, "recording: .nwb or binned .npz; repeat it for more", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder of the fits and the results", required=True)
KINDS_FLAG = flags.DEFINE_list("kinds", ",".join(KINDS), "kinds of decoders")
SPLITS = flags.DEFINE_list("splits", "0,1,2,3,4", "seeds of the outer splits by trial")
BUDGET = flags.DEFINE_integer("budget", Entry.budget, "configurations of each kind", 1)
INNER_FOLDS = flags.DEFINE_integer(
    "inner_folds", 1, "inner folds a configuration is scored on; 1 holds a fifth out once", 1
)
SEED = flags.DEFINE_integer("seed", Entry.seed, "of the configurations and of every fit")
MAX_STEPS = flags.DEFINE_integer("max_steps", None, "most optimiser steps of a fit, to try out", 1)
CORTEX_SIZE = flags.DEFINE_string("cortex_size", Entry.cortex_size, "nano, XS, S or M")
INIT_FROM = flags.DEFINE_string("init_from", None, "checkpoint directory that Cortex starts from")
PRECISION = flags.DEFINE_enum("precision", "fp32", ["fp32", "bf16"], "of Cortex's training")
JOINT = flags.DEFINE_bool("joint", False, "one Cortex for all sessions")
DEVICE = flags.DEFINE_string("device", "cpu", "where to train: cpu or cuda")
AT_ONCE = flags.DEFINE_integer("at_once", 1, "fits that share the device in turns", 1)
PROCESSES = flags.DEFINE_integer("processes", 1, "processes that share the fits", 1)
ORACLE = flags.DEFINE_string("oracle", None, "JSON of training:simulated_ceiling, for shares of it")
MEASURED = flags.DEFINE_string("measured", None, "also write measured tables into this folder")
ROWS = flags.DEFINE_multi_string(
    "rows", None, "prefix of a session's rows, such as r2/chewie; once a session; default: r2/ID"
)
TABLES = flags.DEFINE_multi_string(
    "table", None, "name of a session's measured table; once a session; default: its --rows"
)
ROW_KINDS = flags.DEFINE_list(
    "row_kinds", "", "kinds with a row of their own, the others beside them; default: all"
)
ROW_NAMES = flags.DEFINE_list("row_names", "", "KIND=ROW pairs, such as wiener=ridge,cortex=xs")


def main(argv: list[str]) -> None:
    """Does the fits that are not done yet, and shows what all of them amount to."""
    cli.no_arguments(argv)
    sessions = [open_session(Path(path)) for path in SESSION.value]
    prefixes = ROWS.value or [f"r2/{session.session_id}" for session in sessions]
    if len(prefixes) != len(sessions):
        raise InputError(f"{len(prefixes)} --rows for {len(sessions)} sessions, expected one each")
    tables = TABLES.value or [prefix.replace("/", "_") for prefix in prefixes]
    if len(tables) != len(sessions):
        raise InputError(f"{len(tables)} --table for {len(sessions)} sessions, expected one each")
    names = _row_names()
    if unknown := [kind for kind in ROW_KINDS.value if kind not in KINDS]:
        raise InputError(f"--row_kinds has {unknown[0]!r}, expected some of {', '.join(KINDS)}")
    ceilings = _ceilings(sessions)
    output = Path(OUTPUT.value)
    contest = Contest(
        sessions,
        contestants(sessions, _entry(), output),
        splits=_splits(),
        inner_folds=INNER_FOLDS.value,
    )
    log = FitLog(output)
    _do(contest.inner_jobs(), "inner fits", sessions, log)
    _do(contest.outer_jobs(log), "refits", sessions, log)
    selected = list(contest.selected(log))
    results = [
        standings(i, selected, inner_folds=INNER_FOLDS.value, ceiling=ceiling)
        for i, ceiling in enumerate(ceilings)
    ]
    for i, each in enumerate(results):
        title = f"{sessions[i].session_id}: velocity R2 on held-out trials"
        print(as_text(title, each), end="\n\n")
        if MEASURED.value:
            rows = measured_rows(
                prefixes[i], each, names, ceilings[i], only=ROW_KINDS.value or None
            )
            write(measured_here(tables[i], rows, command=_command()), Path(MEASURED.value))
    _write(output / "comparison.json", sessions, results)


def _entry() -> Entry:
    return Entry(
        kinds=tuple(KINDS_FLAG.value),
        budget=BUDGET.value,
        seed=SEED.value,
        joint=JOINT.value,
        cortex_size=CORTEX_SIZE.value,
        init_from=Path(INIT_FROM.value) if INIT_FROM.value else None,
        precision=PRECISION.value,
        max_steps=MAX_STEPS.value,
    )


def _splits() -> list[int]:
    try:
        splits = [int(seed) for seed in SPLITS.value]
    except ValueError:
        splits = []
    if not splits or min(splits) < 0 or len(set(splits)) < len(splits):
        given = ",".join(SPLITS.value)
        raise InputError(f"--splits={given}, expected different seeds from 0 on, as in 0,1,2")
    return splits


def _row_names() -> dict[str, str]:
    pairs = [pair.partition("=") for pair in ROW_NAMES.value]
    wrong = ["".join(pair) for pair in pairs if pair[0] not in KINDS or not pair[2]]
    if wrong:
        raise InputError(f"--row_names has {wrong[0]!r}, expected KIND=ROW pairs, as in cortex=xs")
    return {kind: row for kind, _, row in pairs}


def _ceilings(sessions: Sequence[Session]) -> list[Ceiling | None]:
    """Each session's ceiling, where the file is of that session."""
    if not ORACLE.value:
        return [None] * len(sessions)
    path = Path(ORACLE.value)
    # Of one session, the file's own check says best what is wrong.
    digest = session_digest(sessions[0]) if len(sessions) == 1 else None
    ceiling = read_ceiling(path, digest=digest)
    found = [ceiling if session_digest(s) == ceiling.digest else None for s in sessions]
    if not any(found):
        raise InputError(f"{path}: is the ceiling of none of the {len(sessions)} sessions")
    return found


def _do(jobs: Iterable[KeyedJob], what: str, sessions: Sequence[Session], log: FitLog) -> None:
    todo = {key: job for key, job in jobs if key not in log}
    workplace = Workplace(device=DEVICE.value, at_once=AT_ONCE.value, processes=PROCESSES.value)
    with tqdm(total=len(todo), desc=what, unit="fit", disable=not todo) as bar:
        for outcome in performed(list(todo.items()), sessions, workplace):
            log.add(outcome)
            bar.set_postfix_str(f"{outcome.kind} {outcome.r2:.3f}", refresh=False)
            bar.update()


def _write(path: Path, sessions: Sequence[Session], results: Sequence[list[Standing]]) -> None:
    content = {
        "command": _command(),
        "sessions": [
            {
                "session_id": session.session_id,
                "digest": session_digest(session),
                "decoders": [{**asdict(s), "mean": s.mean, "sd": s.sd} for s in standings],
            }
            for session, standings in zip(sessions, results, strict=True)
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


def _command() -> str:
    return command_line(
        "//training:baselines",
        files=("session", "init_from", "oracle"),
        places=("output", "measured"),
    )


if __name__ == "__main__":
    cli.run(main)
