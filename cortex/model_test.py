"""The model's sizes, determinism and configuration errors."""

from typing import Any

import pytest
import torch

from cortex.errors import InputError
from cortex.event_batch import collate
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid


@pytest.mark.parametrize(("size", "millions"), [("XS", 4.83), ("S", 24.80), ("M", 83.51)])
def test_parameter_counts(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = Model(ModelConfig.of_size(size, n_units=182, grid=TimeGrid()))
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.05)


def test_every_parameter_of_the_velocity_path_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=TimeGrid(window_steps=3)))
    counts = torch.randint(0, 2, (20, 6)).numpy()
    batch = collate([Events.from_counts(counts)], n_steps=5, bins_per_step=4)
    model(batch, torch.arange(4)).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {n.split(".")[0] for n in without} <= {"masked_query", "masked_spikes"}


def test_events_change_the_answer() -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=TimeGrid())).eval()
    some = Events.from_counts(torch.eye(6, dtype=torch.int64).numpy())
    batch = collate([some, Events.empty()], n_steps=2, bins_per_step=4)
    with torch.inference_mode():
        velocity = model(batch, torch.tensor([3]))
    assert not torch.allclose(velocity[0], velocity[1])


@pytest.mark.parametrize("learning", [True, False])
def test_an_event_that_is_taken_away_was_never_there(learning: bool) -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=TimeGrid(), movements=2))
    model.train(learning)
    counts = torch.randint(0, 2, (20, 6)).numpy()
    whole, without = counts.copy(), counts.copy()
    whole[4, 0], without[4, 0] = 1, 0
    batch, expected = (
        collate([Events.from_counts(each)], n_steps=5, bins_per_step=4) for each in (whole, without)
    )
    # The first event of the second step, so that a hole comes before the others.
    batch.mask_BSE[0, 1, 0] = False
    with torch.set_grad_enabled(learning):
        answers = [model(each, torch.arange(4)) for each in (batch, expected)]
    torch.testing.assert_close(*answers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 30}, "dim 30 is not an even multiple of 4 heads"),
        ({"blocks": 0}, "blocks must be a positive integer, not 0"),
        ({"weighting": "linear"}, "must be sigmoid or softmax, not 'linear'"),
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\), not 1.5"),
    ],
)
def test_bad_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelConfig(**{"n_units": 5, "grid": TimeGrid(), **fields})


def test_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'L' is unknown, expected one of nano, XS, S, M"):
        ModelConfig.of_size("L", n_units=5, grid=TimeGrid())


@pytest.mark.parametrize("field", ["bin_us", "bins_per_step", "window_steps"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_time_grid_wants_positive_integers(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=field):
        TimeGrid(**{field: value})
