"""A trainer's steps: in bfloat16, captured in CUDA graphs, and the weights that it hands out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cortex.model import Model
from cortex.model_config import ModelConfig
from training.fitting.captured_step import WARM_UP_STEPS, CapturedStep
from training.fitting.fit import fit
from training.fitting.fit_config import FitConfig
from training.fitting.trainer import Trainer
from training.samples.session_for_tests import make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors

STEPS = 8


def _model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    grid = make_session().grid
    return Model(ModelConfig.of_size("nano", n_units=12, grid=grid, dropout=0.2))


def _trials(device: str = "cpu") -> TrialTensors:
    samples = trial_samples(make_session(12), range(12))
    return TrialTensors(samples, bins_per_step=4, crop_steps=192, device=device)


def _config(**fields: Any) -> FitConfig:
    return FitConfig(**{"steps": STEPS, "batch_trials": 4, **fields})


def test_a_fit_hands_out_the_average_and_not_the_last_weights() -> None:
    model, config = _model(), _config(average_decay=0.9)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(_model(), _trials(), config)
    average = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for _ in range(STEPS):
        trainer.step()
        for name, p in trainer.model.named_parameters():
            average[name].lerp_(p.detach(), 0.1)
    fitted = fit(model, _trials(), config)
    for name, expected in average.items():
        torch.testing.assert_close(fitted.weights[name], expected, msg=name)
        assert not torch.equal(fitted.weights[name], before[name]), name
    # The model itself has the last weights.
    for name, p in trainer.model.named_parameters():
        assert torch.equal(model.get_parameter(name), p), name


def test_weights_do_not_change_with_the_model() -> None:
    trainer = Trainer(_model(), _trials(), _config())
    weights = trainer.weights()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    trainer.step()
    assert all(torch.equal(before[name], weights[name]) for name in before)


def test_bfloat16_computes_in_it_and_keeps_float32() -> None:
    seen: set[torch.dtype] = set()
    trainer = Trainer(_model(), _trials(), _config(precision="bf16"))
    block = trainer.model.get_submodule("blocks.1")
    block.register_forward_hook(lambda module, inputs, output: seen.add(output.x.dtype))
    losses = [float(trainer.step()) for _ in range(STEPS)]
    assert seen == {torch.bfloat16}
    for parameter in trainer.model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
    exact = Trainer(_model(), _trials(), _config())
    for loss in losses:
        other = float(exact.step())
        assert loss != other
        assert abs(loss - other) < 0.03 * other


if torch.cuda.is_available():

    def _train(
        steps: Trainer | CapturedStep, trainer: Trainer, n: int
    ) -> tuple[list[float], dict[str, Tensor]]:
        losses = [steps.step() for _ in range(n)]
        steps.join()
        return torch.stack(losses).tolist(), trainer.weights()

    # The same dropout, but gradients of gathers are sums in no fixed order: equal to rounding.
    @pytest.mark.parametrize(
        ("precision", "rel", "atol"), [("fp32", 1e-4, 1e-3), ("bf16", 0.02, 5e-3)]
    )
    def test_captured_steps_are_the_eager_ones(precision: str, rel: float, atol: float) -> None:
        assert STEPS > WARM_UP_STEPS + 2
        one, other = (
            Trainer(_model().cuda(), _trials("cuda"), _config(precision=precision))
            for _ in range(2)
        )
        eager, its_weights = _train(one, one, STEPS)
        captured, weights = _train(CapturedStep(other), other, STEPS)
        assert captured == pytest.approx(eager, rel=rel)
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, its_weights[name], rtol=0, atol=atol, msg=name)

    def test_trainers_that_overlap_do_not_disturb_each_other() -> None:
        def trainer(seed: int) -> Trainer:
            return Trainer(_model(seed).cuda(), _trials("cuda"), _config(seed=seed, steps=40))

        overlapping = [CapturedStep(trainer(seed)) for seed in range(4)]
        losses: list[list[Tensor]] = [[] for _ in overlapping]
        for _ in range(40):
            for steps, its_losses in zip(overlapping, losses, strict=True):
                its_losses.append(steps.step())
        for seed, (steps, its_losses) in enumerate(zip(overlapping, losses, strict=True)):
            steps.join()
            one = trainer(seed)
            alone, _ = _train(one, one, 40)
            # Another's dropout would move them by tenths.
            assert torch.stack(its_losses).tolist() == pytest.approx(alone, rel=0.01)
