"""Kinds of movement: found from velocities alone, and the targets of real centre-out recordings."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from cortex.data.open_session import open_session
from training.samples.movement_kinds import UNKNOWN, find_kinds
from training.samples.session_for_tests import make_session
from training.samples.trial_samples import TrialSample, trial_samples

DATA = os.environ.get("CORTEX_TEST_DATA")


def _reaches(directions: list[float], lengths: list[int]) -> list[TrialSample]:
    sample = trial_samples(make_session(), [0])[0]
    rng = np.random.default_rng(0)
    made = []
    for direction, length in zip(directions, lengths, strict=True):
        speed = np.sin(np.linspace(0, np.pi, length * 4)) * rng.uniform(80, 120)
        velocity = speed[:, None] * np.array([np.cos(direction), np.sin(direction)])
        made.append(
            replace(
                sample,
                velocity=velocity.reshape(length, 4, 2).astype(np.float32),
                labelled=np.ones((length, 4), np.bool_),
            )
        )
    return made


def _kinds(samples: list[TrialSample], movements: int) -> list[int]:
    return [s.movement for s in find_kinds(samples, movements).labelled(samples)]


def test_reaches_group_by_direction_whatever_their_duration() -> None:
    rng = np.random.default_rng(1)
    targets = np.repeat(np.arange(4), 10)
    directions = (targets * np.pi / 2 + rng.normal(0, 0.1, 40)).tolist()
    samples = _reaches(directions, rng.integers(8, 20, 40).tolist())
    kinds = _kinds(samples, 4)
    assert adjusted_rand_score(targets, kinds) == 1.0
    assert kinds == _kinds(samples, 4)
    assert {s.movement for s in samples} == {UNKNOWN}


def test_new_trials_are_of_the_kind_they_are_nearest_to() -> None:
    known = find_kinds(_reaches([0.0, 0.1, 3.0, 3.1], [9, 9, 9, 9]), 2)
    right, left = (s.movement for s in known.labelled(_reaches([0.2, 2.9], [12, 7])))
    assert {right, left} == {0, 1}
    assert [s.movement for s in known.labelled(_reaches([0.05], [9]))] == [right]


def test_trials_without_labels_stay_unknown() -> None:
    samples = _reaches([0.0, 1.0, 2.0], [9, 9, 9])
    samples[1] = replace(samples[1], labelled=np.zeros_like(samples[1].labelled))
    kinds = _kinds(samples, 8)
    assert kinds[1] == UNKNOWN
    assert sorted((kinds[0], kinds[2])) == [0, 1]


if DATA:

    @pytest.mark.parametrize("name", ["chewie_20131003_50ms", "mihi_20140303_100ms"])
    def test_the_kinds_of_a_centre_out_task_are_its_targets(name: str) -> None:
        path = Path(str(DATA)) / f"{name}.npz"
        session = open_session(path)
        samples = trial_samples(session, range(len(session.trials)))
        with np.load(path) as file:
            _, first = np.unique(file["trial"], return_index=True)
            targets = file["target"][first]
        assert adjusted_rand_score(targets, _kinds(samples, 8)) > 0.9
