"""What the benchmark compares with computes what the model computes."""

from collections.abc import Callable

import pytest
import torch

from cortex.event_batch import collate
from cortex.events import Events
from cortex.int8_baselines import torchao_is_here, with_int_mm, with_torchao
from cortex.linear_add import LinearAdd
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.norm_linear import NormLinear
from cortex.quantization import Quantization
from cortex.quantized_model import quantized
from cortex.time_grid import TimeGrid

GRID = TimeGrid(window_steps=5)


@pytest.mark.parametrize(
    "form",
    [
        with_int_mm,
        pytest.param(
            with_torchao, marks=pytest.mark.skipif(not torchao_is_here(), reason="no torchao")
        ),
    ],
)
@torch.no_grad()
def test_other_forms_are_as_close_as_ours(form: Callable[[Model], Model]) -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            parameter.uniform_(0.5, 2.0)
    events = Events.from_counts(torch.poisson(torch.full((40, 6), 0.3)).long().numpy())
    batch = collate([events], n_steps=10, bins_per_step=4)
    last = torch.tensor([3])
    exact = model(batch, last)
    formed = form(model).prepare()
    assert not any(isinstance(layer, (NormLinear, LinearAdd)) for layer in formed.modules())
    ours, other = quantized(model, Quantization())(batch, last), formed(batch, last)
    error = float((other - exact).norm() / exact.norm())
    assert 1e-4 < error < 3 * float((ours - exact).norm() / exact.norm())
