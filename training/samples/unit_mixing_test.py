"""Mixed trials: every unit's spikes are whole, from one of two trials of one kind."""

from dataclasses import replace

import numpy as np
import torch

from training.samples.session_for_tests import UNITS, make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialBatch, TrialTensors
from training.samples.unit_mixing import mix_units

KINDS = (0, 1, 0, 1, 0, -1)


def _tensors() -> TrialTensors:
    samples = trial_samples(make_session(), range(len(KINDS)))
    samples = [replace(s, movement=kind) for s, kind in zip(samples, KINDS, strict=True)]
    return TrialTensors(samples, bins_per_step=4, crop_steps=99, device="cpu")


def _counts(batch: TrialBatch) -> np.ndarray:
    """(B, bins, units) counts of a batch's events."""
    events = batch.events
    b, s, e = events.mask_BSE.nonzero(as_tuple=True)
    counts = np.zeros((len(events.mask_BSE), events.mask_BSE.shape[1] * 4, UNITS), np.int64)
    time_bin = s * 4 + events.phase_BSE[b, s, e]
    np.add.at(counts, (b, time_bin, events.unit_BSE[b, s, e]), events.value_BSE[b, s, e])
    return counts


def _mixed(batch: TrialBatch, mates: TrialBatch, largest_share: float) -> TrialBatch:
    generator = torch.Generator().manual_seed(0)
    return mix_units(batch, mates, largest_share=largest_share, n_units=UNITS, generator=generator)


def test_mates_are_of_the_same_kind() -> None:
    tensors = _tensors()
    index = torch.arange(len(KINDS)).repeat(200)
    mates = tensors.random_mates(index, torch.rand(len(index)))
    for trial, kind in enumerate(KINDS):
        expected = {i for i, k in enumerate(KINDS) if k == kind}
        assert set(mates[index == trial].tolist()) == expected


def test_mates_are_of_the_same_session() -> None:
    first = [replace(s, movement=0) for s in trial_samples(make_session(), [0, 1])]
    second = trial_samples(make_session(), [2, 3], first_unit=UNITS)
    tensors = TrialTensors(
        first + [replace(s, movement=0) for s in second],
        bins_per_step=4,
        crop_steps=99,
        device="cpu",
    )
    index = torch.tensor([0, 1, 2, 3]).repeat(50)
    mates = tensors.random_mates(index, torch.rand(len(index)))
    assert ((mates < 2) == (index < 2)).all()


def test_units_come_whole_from_either_trial() -> None:
    tensors = _tensors()
    zero = torch.zeros(2, dtype=torch.int64)
    batch, mates = tensors.batch(torch.tensor([0, 1]), zero), tensors.batch(zero + 2, zero)
    own, other, mixed = _counts(batch), _counts(mates), _counts(_mixed(batch, mates, 1.0))
    from_other = 0
    for trial, unit in np.ndindex(2, UNITS):
        spikes = mixed[trial, :, unit].tolist()
        assert spikes in (own[trial, :, unit].tolist(), other[trial, :, unit].tolist())
        from_other += spikes != own[trial, :, unit].tolist()
    assert 0 < from_other < 2 * UNITS


def test_labels_lie_between_by_the_share_of_units() -> None:
    tensors = _tensors()
    zero = torch.zeros(1, dtype=torch.int64)
    batch, mates = tensors.batch(zero, zero), tensors.batch(zero + 2, zero)
    mates = replace(mates, labelled_BSP=mates.labelled_BSP.clone())
    mates.labelled_BSP[0, 9:] = False
    velocity = _mixed(batch, mates, 1.0).velocity_BSP2[0]
    own, other = batch.velocity_BSP2[0], mates.velocity_BSP2[0]
    share = ((velocity - own)[2] / (other - own)[2]).mean()
    assert 0 < share < 1
    torch.testing.assert_close(velocity[:9], torch.lerp(own, other, share)[:9])
    # Where the mate has no label, the trial keeps its own.
    assert torch.equal(velocity[9:], own[9:])


def test_nothing_is_mixed_at_share_zero() -> None:
    tensors = _tensors()
    zero = torch.zeros(1, dtype=torch.int64)
    batch, mates = tensors.batch(zero, zero), tensors.batch(zero + 2, zero)
    mixed = _mixed(batch, mates, 0.0)
    assert np.array_equal(_counts(mixed), _counts(batch))
    assert torch.equal(mixed.velocity_BSP2, batch.velocity_BSP2)
