"""The onset protocol: its points, and who sees the spikes that come after."""

from dataclasses import replace

import numpy as np
import pytest

from cortex.errors import InputError
from cortex.events import Events
from cortex.session import Session
from training.evaluation.checkpoint_for_tests import make_checkpoint
from training.evaluation.decoders import make_decoders
from training.evaluation.decoders_for_tests import known_decoders
from training.evaluation.figures import ProtocolResult
from training.evaluation.onset import score_onset
from training.evaluation.reaches_for_tests import make_reaches

TRAIN, TEST = list(range(14)), list(range(14, 20))


def _kept(session: Session, first: int, stop: int) -> Session:
    """The session with the spikes of bins [first, stop) around each onset alone."""
    onset = session.trials.event_bins["move_onset"]
    events = session.events
    near = events.time_bin[:, None] - onset
    keep = ((near >= first) & (near < stop)).any(1)
    return replace(
        session,
        events=Events(
            unit=events.unit[keep], time_bin=events.time_bin[keep], value=events.value[keep]
        ),
    )


def _r2(result: ProtocolResult) -> dict[str, float]:
    return {figure.key: figure.r2 for figure in result.figures}


def test_one_point_a_trial_at_the_onset() -> None:
    session = make_reaches()
    result = score_onset(session, TRAIN, TEST, known_decoders(session))
    cortex, wiener, window = result.figures
    assert [f.key for f in result.figures] == ["cortex", "wiener", "ridge_window"]
    assert [f.causal for f in result.figures] == [True, True, False]
    assert window.sees == "FUTURE, until 500 ms after"
    assert {(f.trials, f.points) for f in result.figures} == {(6, 6)}
    onset = session.trials.event_bins["move_onset"][TEST]
    true = session.behavior.velocity[onset].astype(np.float64)
    spread = ((true - true.mean(0)) ** 2).sum(0)
    assert wiener.r2 < cortex.r2
    # A decoder that is 20 off, from answers of up to three bins ago.
    start = session.trials.start_bin[TEST]
    held = session.behavior.velocity[start + (onset + 1 - start) // 4 * 4 - 1]
    errors = ((true - (held + 20)) ** 2).sum(0)
    assert wiener.r2 == pytest.approx(float((1 - errors / spread).mean()), rel=1e-5)


def test_only_the_window_ridge_sees_what_comes_after() -> None:
    session = make_reaches()
    decoders = make_decoders(make_checkpoint(session, TRAIN), session, TRAIN)
    whole = _r2(score_onset(session, TRAIN, TEST, decoders))
    past = _r2(score_onset(_kept(session, -1000, 1), TRAIN, TEST, decoders))
    assert whole["cortex"] == pytest.approx(past["cortex"], abs=1e-5)
    assert whole["wiener"] == pytest.approx(past["wiener"], abs=1e-5)
    assert abs(whole["ridge_window"] - past["ridge_window"]) > 0.01
    window = _r2(score_onset(_kept(session, -20, 100), TRAIN, TEST, decoders))
    assert window["ridge_window"] == whole["ridge_window"]


def test_trials_without_an_onset_are_counted() -> None:
    session = make_reaches()
    onset = session.trials.event_bins["move_onset"].copy()
    onset[15] = -1
    some = replace(session, trials=replace(session.trials, event_bins={"move_onset": onset}))
    result = score_onset(some, TRAIN, TEST, known_decoders(session))
    assert (result.left_out_trials, result.figures[0].trials) == (1, 5)


def test_a_hand_at_rest_has_no_score() -> None:
    session = make_reaches()
    velocity = session.behavior.velocity.copy()
    velocity[session.trials.event_bins["move_onset"]] *= 1e-3
    rest = replace(session, behavior=replace(session.behavior, velocity=velocity))
    with pytest.raises(InputError, match="the hand is still at rest"):
        score_onset(rest, TRAIN, TEST, known_decoders(session))


def test_no_onset_is_bad_input() -> None:
    session = make_reaches()
    without = replace(session, trials=replace(session.trials, event_bins={}))
    with pytest.raises(InputError, match="no 'move_onset'"):
        score_onset(without, TRAIN, TEST, known_decoders(session))
