"""Splits, targets and the Wiener filter: by trial, causal, and on the same points."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cortex.data.open_session import open_session
from cortex.errors import InputError
from cortex.events import Events
from training.evaluation.metrics import velocity_r2
from training.rivals.wiener import WienerConfig, WienerFilter
from training.samples.session_for_tests import make_session
from training.samples.splits import split_session, split_trials
from training.samples.targets import trial_targets

DATA = os.environ.get("CORTEX_TEST_DATA")


def test_split_is_the_published_permutation() -> None:
    order = np.random.default_rng(3).permutation(159).tolist()
    assert split_trials(159, 3) == (order[:127], order[127:])
    train, test = split_trials(2, 0)
    assert len(train) == len(test) == 1
    with pytest.raises(InputError, match="at least 2"):
        split_trials(1, 0)


def test_only_trials_for_training_or_validation_are_split() -> None:
    session = make_session(10)
    trials = replace(session.trials, split=("none", "train", "val", "test", "train") * 2)
    train, held_out = split_session(replace(session, trials=trials), 0)
    assert sorted(train + held_out) == [1, 2, 4, 6, 7, 9]
    assert split_session(session, 3) == split_trials(10, 3)
    unlabelled = replace(session.behavior, time_bin=np.empty(0, np.int64))
    unlabelled = replace(unlabelled, velocity=np.empty((0, 2), np.float32))
    with pytest.raises(InputError, match="no behaviour"):
        split_session(replace(session, behavior=unlabelled), 0)


def test_targets_are_the_labels_of_steps_last_bins() -> None:
    session = make_session()
    behavior = session.behavior
    keep = behavior.time_bin != int(session.trials.start_bin[2]) + 7
    session = replace(
        session,
        behavior=replace(
            behavior, time_bin=behavior.time_bin[keep], velocity=behavior.velocity[keep]
        ),
    )
    steps, velocity = trial_targets(session, 2)
    assert steps.tolist() == [0, *range(2, 15)]
    at = int(session.trials.start_bin[2]) + 3
    expected = session.behavior.velocity[session.behavior.time_bin == at][0]
    assert np.array_equal(velocity[0], expected)


def test_r2_is_the_mean_over_dimensions() -> None:
    true = np.array([[0, 0], [1, 2], [2, 4]], np.float32)
    half = true.copy()
    half[:, 1] = 2
    assert velocity_r2(true, true) == 1.0
    assert velocity_r2(true, half) == pytest.approx(0.5)


def test_wiener_filter_decodes_and_never_crosses_a_trial() -> None:
    session = make_session(40)
    train, test = split_trials(40, 0)
    wiener = WienerFilter(WienerConfig()).fit(session, train)
    true = np.concatenate([trial_targets(session, t)[1] for t in test])
    assert velocity_r2(true, np.concatenate(wiener.predict(session, test))) > 0.5
    start, stop = int(session.trials.start_bin[5]), int(session.trials.stop_bin[5])
    alone = replace(session, events=session.events.between(start, stop))
    assert np.array_equal(wiener.predict(session, [5])[0], wiener.predict(alone, [5])[0])
    past = replace(session, events=session.events.between(start, start + 20))
    np.testing.assert_allclose(
        wiener.predict(past, [5])[0][:5], wiener.predict(session, [5])[0][:5], rtol=1e-5
    )
    silent = replace(session, events=Events.empty())
    assert np.isfinite(wiener.predict(silent, [5])[0]).all()


def test_no_labels_to_fit_to_is_bad_input() -> None:
    session = make_session()
    with pytest.raises(InputError, match="0 training trials hold no labelled step"):
        WienerFilter(WienerConfig()).fit(session, [])
    behavior = session.behavior
    unlabelled = replace(
        session,
        behavior=replace(behavior, time_bin=behavior.time_bin[:0], velocity=behavior.velocity[:0]),
    )
    with pytest.raises(InputError, match="hold no labelled step"):
        WienerFilter(WienerConfig()).fit(unlabelled, [0, 1])


if DATA:

    @pytest.mark.parametrize(
        ("name", "floor"), [("chewie_20131003_50ms", 0.70), ("mihi_20140303_100ms", 0.80)]
    )
    def test_wiener_filter_on_real_recordings(name: str, floor: float) -> None:
        session = open_session(Path(str(DATA)) / f"{name}.npz")
        train, test = split_trials(len(session.trials), 0)
        wiener = WienerFilter(WienerConfig()).fit(session, train)
        true = np.concatenate([trial_targets(session, t)[1] for t in test])
        assert velocity_r2(true, np.concatenate(wiener.predict(session, test))) > floor
