"""The whole evaluation of a small decoder, and everything that is written of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.session import Session
from training.evaluation.checkpoint_for_tests import make_checkpoint
from training.evaluation.evaluation import Evaluation, evaluate
from training.evaluation.intervals import bootstrap_r2
from training.evaluation.measured_rows import measured_rows
from training.evaluation.metrics import velocity_r2
from training.evaluation.offline_decoding import decode_trials
from training.evaluation.output_folder import write_folder
from training.evaluation.per_bin import PerBin
from training.evaluation.reaches_for_tests import make_reaches
from training.evaluation.report import as_json, as_text
from training.evaluation.scoring import true_velocity
from training.fitting.provenance import session_digest
from training.oracle.ceiling import Ceiling
from training.rivals.wiener import WienerConfig, WienerFilter
from training.samples.splits import split_trials

SPLIT_SEED = 3
TRAIN, TEST = split_trials(20, SPLIT_SEED)


@pytest.fixture(scope="module")
def session() -> Session:
    return make_reaches()


@pytest.fixture(scope="module")
def checkpoint(session: Session) -> Checkpoint:
    return replace(make_checkpoint(session, TRAIN, split_seed=SPLIT_SEED), digest="abc")


def _ceiling(session: Session, trials: list[int]) -> Ceiling:
    return Ceiling(
        session_id=session.session_id,
        digest=session_digest(session),
        trials=tuple(trials),
        points=60 * len(trials),
        r2_causal=0.8,
        r2_smoothed=0.9,
    )


@pytest.fixture(scope="module")
def evaluated(session: Session, checkpoint: Checkpoint) -> tuple[Evaluation, PerBin]:
    return evaluate(checkpoint, session, ceiling=_ceiling(session, TEST[:2]))


def test_per_bin_figures_are_those_of_the_held_out_trials(
    session: Session, checkpoint: Checkpoint, evaluated: tuple[Evaluation, PerBin]
) -> None:
    evaluation, _ = evaluated
    assert evaluation.held_out_trials == tuple(TEST)
    assert evaluation.trained_on == len(TRAIN) == 16
    true = true_velocity(session, TEST)
    offline = decode_trials(checkpoint, session, TEST)
    wiener = WienerFilter(WienerConfig()).fit(session, TRAIN).predict(session, TEST)
    figures = {f.key: f for f in evaluation.protocols[0].figures}
    r2 = velocity_r2(np.concatenate(true), np.concatenate(offline))
    assert figures["cortex_offline"].r2 == r2
    assert figures["cortex"].r2 == pytest.approx(r2, abs=1e-5)
    assert figures["cortex"].interval == pytest.approx(bootstrap_r2(true, offline), abs=1e-5)
    assert figures["wiener"].r2 == velocity_r2(np.concatenate(true), np.concatenate(wiener))
    assert (figures["cortex"].trials, figures["cortex"].points) == (4, 240)
    assert evaluation.streaming_error < 1e-5
    (difference,) = evaluation.protocols[0].differences
    assert difference.r2 == figures["cortex"].r2 - figures["wiener"].r2
    assert difference.interval is not None
    assert difference.interval[0] < difference.r2 < difference.interval[1]


def test_shares_are_of_the_oracles_own_trials(
    session: Session, checkpoint: Checkpoint, evaluated: tuple[Evaluation, PerBin]
) -> None:
    evaluation, decoded = evaluated
    oracle = evaluation.oracle
    assert oracle is not None
    true = np.concatenate(true_velocity(session, TEST[:2]))
    r2 = velocity_r2(true, np.concatenate(decoded.streamed[:2]))
    assert oracle.r2["cortex"] == r2
    assert oracle.share["cortex"] == pytest.approx(r2 / 0.8)
    assert oracle.trials == 2
    with pytest.raises(InputError, match="2 trials, 1 of them not held out"):
        evaluate(checkpoint, session, ceiling=_ceiling(session, [TEST[0], TRAIN[0]]))


def test_json_has_every_figure(evaluated: tuple[Evaluation, PerBin]) -> None:
    report = json.loads(json.dumps(as_json(evaluated[0]), allow_nan=False))
    assert list(report["protocols"]) == ["per_bin", "benchmark", "onset"]
    assert {p: list(r["figures"]) for p, r in report["protocols"].items()} == {
        "per_bin": ["cortex", "cortex_offline", "wiener"],
        "benchmark": ["cortex", "cortex_ahead", "wiener", "ridge_smoothed"],
        "onset": ["cortex", "wiener", "ridge_window"],
    }
    window = report["protocols"]["onset"]["figures"]["ridge_window"]
    assert window["causal"] is False
    assert window["future_s"] == 0.5
    assert window["sees"] == "FUTURE, until 500 ms after"
    assert report["protocols"]["per_bin"]["figures"]["cortex"]["interval"][0] is not None
    assert report["interval"] == {"level": 0.95, "resamples": 1000, "drawn": "trials"}
    assert report["model_digest"] == "abc"
    assert report["held_out_trials"] == TEST
    assert report["oracle"]["r2_oracle"] == 0.8


def test_text_says_what_each_decoder_sees(evaluated: tuple[Evaluation, PerBin]) -> None:
    lines = as_text(evaluated[0]).splitlines()
    assert "16 trials trained on, 4 held out" in lines[0]
    future = [line for line in lines if "FUTURE, until" in line]
    assert [re.split(r" {2,}", line.strip())[0] for line in future] == [
        "ridge on smoothed spikes",
        "ridge on the whole window",
    ]
    (first,) = [line for line in lines if line.startswith("per_bin  ")]
    figure = evaluated[0].protocols[0].figures[0]
    assert figure.interval is not None
    low, high = figure.interval
    assert re.split(r" {2,}", first) == [
        *("per_bin", figure.decoder, f"{figure.r2:.3f}", f"{low:.3f} to {high:.3f}"),
        *("4", "240", "causal, until the moment"),
    ]
    assert any(line.startswith("share of the causal oracle, R2 0.800 on 2 of") for line in lines)
    # The table is aligned: the column of what is seen begins at one place.
    places = {line.index("causal, until") for line in lines if "causal, until" in line}
    assert len(places) == 1


def test_measured_rows_have_stable_names(evaluated: tuple[Evaluation, PerBin]) -> None:
    rows = {row.name: row for row in measured_rows(evaluated[0], "r2/reaches")}
    assert list(rows)[:4] == [
        "r2/reaches/per_bin/cortex",
        "r2/reaches/per_bin/cortex_offline",
        "r2/reaches/per_bin/wiener",
        "r2/reaches/per_bin/cortex_minus_wiener",
    ]
    assert "FUTURE, until 500 ms after" in rows["r2/reaches/onset/ridge_window"].note
    assert "95 % interval" in rows["r2/reaches/per_bin/cortex"].note
    assert rows["r2/reaches/oracle_causal"].value == 0.8
    assert rows["r2/reaches/streaming_error"].value == evaluated[0].streaming_error


def test_a_recording_without_onsets_says_so(session: Session, checkpoint: Checkpoint) -> None:
    plain = replace(session, trials=replace(session.trials, event_bins={}))
    evaluation, _ = evaluate(checkpoint, plain)
    assert [bool(result.not_run) for result in evaluation.protocols] == [False, True, True]
    report = as_json(evaluation)
    assert "no 'move_onset'" in report["protocols"]["onset"]["not_run"]
    assert "figures" not in report["protocols"]["benchmark"]
    assert report["oracle"] is None
    assert "not run: session 'reaches': trials have no 'move_onset'" in as_text(evaluation)


def test_one_held_out_trial_has_a_figure_and_no_interval() -> None:
    pair = make_reaches(2)
    train, _ = split_trials(2, 0)
    evaluation, _ = evaluate(make_checkpoint(pair, train), pair)
    report = json.loads(json.dumps(as_json(evaluation), allow_nan=False))
    assert report["protocols"]["per_bin"]["figures"]["cortex"]["interval"] is None
    assert "expected at least" in report["protocols"]["onset"]["not_run"]
    assert " nan " not in as_text(evaluation)


def test_other_recordings_are_refused(session: Session, checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="not a recording that the model was trained on"):
        evaluate(checkpoint, make_reaches(seed=1))
    card = {key: value for key, value in checkpoint.card.items() if key != "split_seed"}
    with pytest.raises(InputError, match="no split_seed"):
        evaluate(replace(checkpoint, card=card), session)
    silent = replace(
        session.behavior,
        time_bin=session.behavior.time_bin[:0],
        velocity=session.behavior.velocity[:0],
    )
    unlabelled = replace(session, behavior=silent)
    known = {**checkpoint.card, "sessions": [{"digest": session_digest(unlabelled)}]}
    with pytest.raises(InputError, match="has no behaviour"):
        evaluate(replace(checkpoint, card=known), unlabelled)


def test_the_folder_holds_all(
    session: Session, evaluated: tuple[Evaluation, PerBin], tmp_path: Path
) -> None:
    names = write_folder(evaluated[0], session, evaluated[1], tmp_path / "scores")
    assert {path.name for path in (tmp_path / "scores").iterdir()} == set(names)
    report = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert report["streaming_error"] == evaluated[0].streaming_error
    table = (tmp_path / "scores" / "evaluation.md").read_text().splitlines()
    rows = [line for line in table if line.startswith("|")]
    assert len(rows) == 2 + 3 + 1 + 4 + 1 + 3 + 1
    assert {line.count("|") for line in rows} == {8}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_folder(evaluated[0], session, evaluated[1], tmp_path / "file")
