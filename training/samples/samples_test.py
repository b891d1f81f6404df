"""Samples, batches of them, augmentation and the masked task."""

import numpy as np
import pytest
import torch

from training.samples.augmentation import AugmentationConfig, augment
from training.samples.masked_spikes import hide_counts
from training.samples.session_for_tests import UNITS, make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialBatch, TrialTensors


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _tensors(crop_steps: int = 99) -> TrialTensors:
    samples = trial_samples(make_session(), range(12))
    return TrialTensors(samples, bins_per_step=4, crop_steps=crop_steps, device="cpu")


def _counts(batch: TrialBatch) -> np.ndarray:
    """(B, bins, units) counts of a batch's events."""
    events = batch.events
    b, s, e = events.mask_BSE.nonzero(as_tuple=True)
    counts = np.zeros((len(events.mask_BSE), events.mask_BSE.shape[1] * 4, UNITS), np.int64)
    time_bin = s * 4 + events.phase_BSE[b, s, e]
    np.add.at(counts, (b, time_bin, events.unit_BSE[b, s, e]), events.value_BSE[b, s, e])
    return counts


def test_samples_count_time_from_their_first_bin() -> None:
    session = make_session()
    sample = trial_samples(session, [3], first_unit=100)[0]
    start = int(session.trials.start_bin[3])
    assert sample.n_steps == 15
    assert sample.labelled.all()
    events = session.events.between(start, start + 60)
    assert np.array_equal(sample.events.time_bin + start, events.time_bin)
    assert np.array_equal(sample.events.unit, events.unit + 100)
    assert sample.units == (100, 112)


def test_batches_are_pieces_of_trials() -> None:
    session = make_session()
    tensors = _tensors(crop_steps=6)
    index, uniform = torch.tensor([7, 2]), torch.tensor([0.0, 0.999])
    starts = tensors.random_starts(index, uniform)
    assert starts.tolist() == [0, 9]
    batch = tensors.batch(index, starts)
    for row, (trial, first) in enumerate(((7, 0), (2, 9))):
        start = int(session.trials.start_bin[trial]) + first * 4
        assert np.array_equal(_counts(batch)[row], session.events.to_counts(24, UNITS, start))
        velocity = session.behavior.velocity[trial * 60 + first * 4 :][:24]
        assert np.array_equal(batch.velocity_BSP2[row].flatten(0, 1).numpy(), velocity)
    assert batch.labelled_BSP.all()
    assert batch.inside_BS.all()


def test_a_short_trial_is_padded_with_nothing() -> None:
    short = trial_samples(make_session(), [0])[0]
    session = make_session()
    session.trials.stop_bin[1] -= 22
    tensors = TrialTensors(
        [short, trial_samples(session, [1])[0]], bins_per_step=4, crop_steps=99, device="cpu"
    )
    batch = tensors.batch(torch.tensor([1]), torch.tensor([0]))
    assert batch.inside_BS.sum() == 10
    assert batch.labelled_BSP.sum() == 38
    assert not batch.events.mask_BSE[0, 10:].any()


def test_augmentation_only_takes_away() -> None:
    batch = _tensors().batch(torch.arange(12), torch.zeros(12, dtype=torch.int64))
    full = _counts(batch)
    generator = _generator()
    config = AugmentationConfig(event_dropout=0.3, unit_dropout=0.8)
    shares = []
    for _ in range(10):
        counts = _counts(augment(batch, config, UNITS, generator))
        assert ((counts == full) | (counts == 0)).all()
        shares.append((counts > 0).sum() / (full > 0).sum())
    assert np.mean(shares) == pytest.approx(0.7 * 0.6, abs=0.05)
    nothing = AugmentationConfig(event_dropout=0, unit_dropout=0)
    assert np.array_equal(_counts(augment(batch, nothing, UNITS, generator)), full)


def test_hidden_counts_are_gone_from_the_input_and_known() -> None:
    batch = _tensors().batch(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    thinned = augment(batch, AugmentationConfig(event_dropout=0.4), UNITS, _generator())
    hidden = hide_counts(
        thinned.events, units_B2=thinned.units_B2, per_step=4, generator=_generator()
    )
    true = _counts(thinned).reshape(3, 15, 4, UNITS).sum(2)
    seen = 0
    for trial, step in np.ndindex(3, 15):
        units = hidden.unit_BSQ[trial, step].tolist()
        assert hidden.count_BSQ[trial, step].tolist() == true[trial, step, units].tolist()
        mask = hidden.batch.mask_BSE[trial, step]
        left = set(hidden.batch.unit_BSE[trial, step][mask].tolist())
        assert left == set(np.flatnonzero(true[trial, step])) - set(units)
        seen += int((hidden.count_BSQ[trial, step] > 0).sum())
    assert seen > 45


def test_hidden_units_are_of_the_trials_own_session() -> None:
    samples = trial_samples(make_session(), range(4), first_unit=50)
    tensors = TrialTensors(samples, bins_per_step=4, crop_steps=99, device="cpu")
    batch = tensors.batch(torch.arange(4), torch.zeros(4, dtype=torch.int64))
    hidden = hide_counts(batch.events, units_B2=batch.units_B2, per_step=9, generator=_generator())
    assert hidden.unit_BSQ.min() >= 50
    assert hidden.unit_BSQ.max() < 50 + UNITS
