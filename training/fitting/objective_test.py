"""The masked-spike loss by itself: its value, its gradients, and what it teaches."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid
from training.fitting.fit_config import FitConfig
from training.fitting.objective import Objective, Share
from training.fitting.trainer import Trainer
from training.samples.augmentation import AugmentationConfig
from training.samples.masked_spikes import HiddenCounts, hide_counts
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialBatch, TrialTensors

UNITS, TRIAL_BINS = 12, 48
SPIKES_ALONE = FitConfig(
    steps=160,
    batch_trials=8,
    learning_rate=3e-3,
    velocity_weight=0.0,
    masked_weight=1.0,
    augmentation=AugmentationConfig(event_dropout=0.0, unit_dropout=0.0),
)


def _two_groups(n_trials: int) -> Session:
    """Units in two groups: in each trial one group fires and the other hardly does.

    Which one it is cannot be known from a unit's own rate, but from the other units' spikes.
    Trials differ in length, and some counts are beyond the last bucket of _model.
    """
    rng = np.random.default_rng(0)
    n_bins = n_trials * TRIAL_BINS
    active = np.repeat(rng.permutation(n_trials) % 2, TRIAL_BINS)
    expected = np.where(active[:, None] == np.arange(UNITS) % 2, 0.6, 0.03)
    start = np.arange(n_trials) * TRIAL_BINS
    return Session(
        session_id="two_groups",
        subject="nobody",
        unit_ids=tuple(f"u{i}" for i in range(UNITS)),
        grid=TimeGrid(window_steps=8),
        events=Events.from_counts(rng.poisson(expected * rng.uniform(0.5, 1.5, UNITS))),
        behavior=Behavior(
            time_bin=np.arange(n_bins), velocity=np.zeros((n_bins, 2), np.float32), unit="mm/s"
        ),
        trials=Trials(start_bin=start, stop_bin=start + TRIAL_BINS - 8 * (np.arange(n_trials) % 3)),
    )


def _model() -> Model:
    torch.manual_seed(0)
    config = ModelConfig.of_size("nano", n_units=UNITS, grid=TimeGrid(window_steps=8), max_count=2)
    return Model(config)


def _trials(which: range) -> TrialTensors:
    samples = trial_samples(_two_groups(64), which)
    return TrialTensors(samples, bins_per_step=4, crop_steps=192, device="cpu")


def _hidden(trials: TrialTensors) -> tuple[TrialBatch, HiddenCounts]:
    everything = torch.arange(len(trials))
    batch = trials.batch(everything, torch.zeros_like(everything))
    generator = torch.Generator().manual_seed(0)
    hidden = hide_counts(batch.events, units_B2=batch.units_B2, per_step=4, generator=generator)
    return batch, hidden


def _share(batch: TrialBatch, parts: int = 1) -> Share:
    return Share(labels=batch.labelled_BSP.sum() / parts, steps=batch.inside_BS.sum() / parts)


def _logits(model: Model, hidden: HiddenCounts) -> Tensor:
    latents = model.encode(hidden.batch)
    return model.count_logits(latents, hidden.unit_BSQ)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_hidden_counts() -> None:
    model = _model()
    batch, hidden = _hidden(_trials(range(6)))
    assert not batch.inside_BS.all()
    assert (hidden.count_BSQ > 2).any()
    p_BSQC = _logits(model, hidden).double().softmax(-1)
    losses = [
        -np.log(float(p_BSQC[b, s, q, min(int(hidden.count_BSQ[b, s, q]), 2)]))
        for b, s in batch.inside_BS.nonzero().tolist()
        for q in range(hidden.unit_BSQ.shape[2])
    ]
    objective = Objective(model, SPIKES_ALONE)
    whole = float(objective(batch, hidden, _share(batch)))
    assert whole == pytest.approx(np.mean(losses), rel=1e-5)
    parts = [
        float(objective(batch.rows(mine), hidden.rows(mine), _share(batch, parts=2)))
        for mine in (slice(0, None, 2), slice(1, None, 2))
    ]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-5)


def test_its_gradients_reach_all_but_the_velocity_readout() -> None:
    model = _model()
    batch, hidden = _hidden(_trials(range(6)))
    Objective(model, SPIKES_ALONE)(batch, hidden, _share(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        reached = bool(parameter.grad.any())
        assert reached != name.startswith(("velocity.", "velocity_query_D", "query_phase.")), name


def test_it_teaches_the_units_correlations() -> None:
    trainer = Trainer(_model(), _trials(range(48)), SPIKES_ALONE)
    for _ in range(SPIKES_ALONE.steps):
        trainer.step()
    batch, hidden = _hidden(_trials(range(48, 64)))
    inside = batch.inside_BS
    unit, bucket = (
        hidden.unit_BSQ[inside].flatten(),
        hidden.count_BSQ[inside].clamp(max=2).flatten(),
    )
    model = trainer.model.eval()
    assert isinstance(model, Model)
    with torch.no_grad():
        log_p = _logits(model, hidden).log_softmax(-1)[inside].flatten(0, 1)
    learnt = -log_p[torch.arange(len(bucket)), bucket].mean()
    # The best that can be said without looking at the other units, in hindsight.
    counts = torch.zeros(UNITS, 3).index_put_((unit, bucket), torch.ones(()), accumulate=True)
    by_unit = _entropy(counts)
    constant = _entropy(counts.sum(0, keepdim=True))
    assert by_unit < constant
    assert learnt < 0.8 * by_unit


def _entropy(counts: Tensor) -> Tensor:
    """Mean loss of each row's own distribution over what the rows count."""
    p = counts / counts.sum(-1, keepdim=True)
    return -torch.xlogy(counts, p).sum() / counts.sum()
