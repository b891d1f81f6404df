"""New units start as those that are tuned alike."""

import numpy as np
import pytest
import torch

from cortex.errors import InputError
from training.adaptation.planted_for_tests import HELD_OUT, NEW_TRIALS, planted
from training.adaptation.unit_matching import known_units, matched_tables
from training.adaptation.unit_tuning import fit_tuning, log_rates, tuning_points
from training.fitting.initialise import UNIT_EMBEDDING
from training.samples.session_for_tests import make_session


def test_tuning_is_what_was_planted() -> None:
    session = make_session(60, seed=5)
    rng = np.random.default_rng(5)
    # As make_session draws: velocities first, then the directions that units prefer.
    rng.uniform(-100, 100, (60, 2))
    preferred = rng.normal(size=(2, 12)).T
    points = tuning_points(session, range(60))
    tuning = fit_tuning(points, scale=50.0)
    cosine = (tuning[:, 1:3] * preferred).sum(1) / (
        np.linalg.norm(tuning[:, 1:3], axis=1) * np.linalg.norm(preferred, axis=1)
    )
    assert cosine.min() > 0.9
    expected = np.exp(log_rates(tuning, points, 50.0)).mean(0) * points.step_s
    np.testing.assert_allclose(expected, points.counts.mean(0), rtol=0.05)


def test_many_trials_find_the_twin() -> None:
    known = known_units(planted().source, [planted().first])
    matched = matched_tables(known, planted().new, [*NEW_TRIALS, *HELD_OUT])[UNIT_EMBEDDING]
    embedding = known.tables[UNIT_EMBEDDING]
    twin = embedding[torch.from_numpy(planted().twin)]
    distance = torch.cdist(matched, embedding)
    assert (distance.argmin(1).numpy() == planted().twin).mean() > 0.8
    assert (matched - twin).norm() < 0.5 * (embedding.mean(0) - twin).norm()


def test_no_trial_leaves_every_guess_standing() -> None:
    known = known_units(planted().source, [planted().first])
    matched = matched_tables(known, planted().new, [])[UNIT_EMBEDDING]
    embedding = known.tables[UNIT_EMBEDDING]
    torch.testing.assert_close(matched, embedding.mean(0).expand_as(matched))


def test_a_recording_of_strangers_is_refused() -> None:
    with pytest.raises(InputError, match="does not know its units"):
        known_units(planted().source, [planted().new])
