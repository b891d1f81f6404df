"""What the speed of a trainer's steps is made of."""

import pytest

from cortex.model import Model
from cortex.model_config import ModelConfig
from training.fitting.fit_config import FitConfig
from training.fitting.step_speed import (
    UNTIMED_STEPS,
    StepSpeed,
    flop_a_step,
    step_speed,
    tokens_a_step,
)
from training.fitting.trainer import Trainer
from training.samples.session_for_tests import make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors

TRIALS, TRIAL_STEPS = 4, 15


def _trainer(**shape: int) -> Trainer:
    session = make_session(TRIALS)
    samples = trial_samples(session, range(TRIALS))
    trials = TrialTensors(samples, bins_per_step=4, crop_steps=192, device="cpu")
    model = Model(ModelConfig.of_size("nano", n_units=12, grid=session.grid, **shape))
    return Trainer(model, trials, FitConfig(steps=UNTIMED_STEPS + 3, batch_trials=TRIALS))


def test_every_timed_step_has_a_time() -> None:
    trainer = _trainer()
    speed = step_speed(trainer, captured=False)
    assert trainer.done == UNTIMED_STEPS + 3
    assert len(speed.seconds) == 3
    assert 0 < speed.quantile_s(0.1) <= speed.quantile_s(0.5) <= speed.quantile_s(0.9)
    assert StepSpeed(seconds=(3.0, 1.0, 2.0), peak_bytes=0).quantile_s(0.5) == 2.0


def test_tokens_are_the_events_of_the_trials() -> None:
    session, trainer = make_session(TRIALS), _trainer()
    inside = [
        session.events.between(start, stop)
        for start, stop in zip(session.trials.start_bin, session.trials.stop_bin, strict=True)
    ]
    # A batch has every trial once.
    assert tokens_a_step(trainer) == sum(map(len, inside))
    assert trainer.done == 0


def test_a_block_costs_six_operations_a_parameter_and_latent() -> None:
    dim, latents_a_step = 128, 2
    extra = flop_a_step(_trainer(blocks=3)) - flop_a_step(_trainer(blocks=2))
    # Attention's own products are not counted here; one start comes before all trials' steps.
    latents = (TRIALS * TRIAL_STEPS + 1) * latents_a_step
    assert extra == pytest.approx(6 * 12 * dim**2 * latents, rel=1e-6)
