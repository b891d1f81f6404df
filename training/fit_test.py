"""Training: samples, augmentation, the masked task, learning, and reproducibility."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cortex.checkpoint import save_checkpoint
from cortex.errors import InputError
from cortex.event_batch import collate
from training.augmentation import AugmentationConfig, augment
from training.fit import FitConfig
from training.masked_spikes import hide_counts
from training.scoring import score
from training.session_for_tests import UNITS, make_session
from training.train_decoder import TrainConfig, session_digest, train_decoder
from training.trial_samples import trial_samples


def test_samples_count_time_from_their_first_bin() -> None:
    session = make_session()
    sample = trial_samples(session, [3])[0]
    start = int(session.trials.start_bin[3])
    assert sample.n_steps == 15
    assert sample.labelled.all()
    assert np.array_equal(
        sample.events.shifted(start).unit, session.events.between(start, start + 60).unit
    )
    piece = sample.crop(4, 6)
    assert np.array_equal(piece.velocity, sample.velocity[4:10])
    assert np.array_equal(
        piece.events.to_counts(24, UNITS), sample.events.to_counts(60, UNITS)[16:40]
    )


def test_augmentation_only_takes_away() -> None:
    sample = trial_samples(make_session(), [0])[0]
    full = sample.events.to_counts(60, UNITS)
    rng = np.random.default_rng(0)
    config = AugmentationConfig(crop_steps=15, event_dropout=0.3, unit_dropout=0.8)
    shares = []
    for _ in range(30):
        counts = augment(sample, config, UNITS, rng).events.to_counts(60, UNITS)
        assert np.isin(counts - full, [0, *-np.unique(full)]).all()
        shares.append((counts > 0).sum() / (full > 0).sum())
    assert np.mean(shares) == pytest.approx(0.7 * 0.6, abs=0.08)
    untouched = augment(
        sample, AugmentationConfig(crop_steps=99, event_dropout=0, unit_dropout=0), UNITS, rng
    )
    assert np.array_equal(untouched.events.to_counts(60, UNITS), full)


def test_hidden_counts_are_gone_from_the_input_and_known() -> None:
    sample = trial_samples(make_session(), [0])[0]
    batch = collate([sample.events], n_steps=15, bins_per_step=4)
    hidden = hide_counts(
        batch, n_units=UNITS, per_step=4, generator=torch.Generator().manual_seed(0)
    )
    true = sample.events.to_counts(60, UNITS).reshape(15, 4, UNITS).sum(1)
    seen = 0
    for step in range(15):
        units = hidden.unit_BSQ[0, step].tolist()
        assert hidden.count_BSQ[0, step].tolist() == true[step, units].tolist()
        left = hidden.batch.unit_BSE[0, step][hidden.batch.mask_BSE[0, step]]
        assert not set(left.tolist()) & set(units)
        assert set(left.tolist()) == set(np.flatnonzero(true[step])) - set(units)
        seen += int((hidden.count_BSQ[0, step] > 0).sum())
    assert seen > 15


def _config(**fit: object) -> TrainConfig:
    augmentation = AugmentationConfig(event_dropout=0.0, unit_dropout=0.0)
    base = FitConfig(steps=60, batch_trials=8, augmentation=augmentation)
    return TrainConfig(dropout=0.0, fit=replace(base, **fit))  # type: ignore[arg-type]


def test_learns_what_is_there_to_learn() -> None:
    session = make_session(40)
    losses: list[float] = []
    checkpoint = train_decoder(
        session, range(32), _config(), on_step=lambda step, loss: losses.append(loss)
    )
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert score(checkpoint, session, range(32), range(32, 40)).r2 > 0.5


def test_a_seed_fixes_the_weights(tmp_path: Path) -> None:
    session = make_session()

    def digest(name: str, seed: int) -> str:
        config = _config(steps=3, seed=seed)
        return save_checkpoint(train_decoder(session, range(8), config), tmp_path / name)

    assert digest("a", 0) == digest("b", 0) != digest("c", 1)


def test_scaling_comes_from_the_training_trials_alone() -> None:
    session = make_session()
    checkpoint = train_decoder(session, [0, 1], _config(steps=1))
    labels = session.behavior.velocity[:120]
    np.testing.assert_allclose(checkpoint.model.velocity_mean, labels.mean(0), rtol=1e-4)
    np.testing.assert_allclose(checkpoint.model.velocity_scale, labels.std(0), rtol=1e-4)


def test_trials_without_labels_are_refused() -> None:
    session = make_session()
    none = replace(
        session.behavior, time_bin=np.empty(0, np.int64), velocity=np.empty((0, 2), np.float32)
    )
    with pytest.raises(InputError, match="no trial has a velocity label"):
        train_decoder(replace(session, behavior=none), [0], _config(steps=1))


def test_digest_sees_every_column() -> None:
    session = make_session()
    behavior = session.behavior
    changed = replace(session, behavior=replace(behavior, velocity=behavior.velocity + 1))
    assert session_digest(session) == session_digest(make_session())
    assert session_digest(session) != session_digest(changed)
