"""An INT8 model decodes nearly as its float model does, and streams what it decodes offline."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cortex.errors import InputError
from cortex.event_batch import EventBatch, collate
from cortex.events import Events
from cortex.int8_layers import Int8Layer, Int8LinearAdd, Int8NormLinear
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.norm_linear import NormLinear
from cortex.precision import to_bfloat16
from cortex.quantization import Quantization
from cortex.quantized_model import (
    float_layers,
    n_weights,
    quantized,
    stored_tensors,
    with_float_activations,
)
from cortex.streaming import StreamCache
from cortex.time_grid import TimeGrid

GRID = TimeGrid(window_steps=5)
STEPS = 12
LAST = torch.tensor([GRID.bins_per_step - 1])
ADDING = (
    *("cross.out", "velocity.out"),
    *(f"blocks.{i}.{layer}" for i in (0, 1) for layer in ("out", "down")),
)
# A step of 8 standard deviations of inputs that are of order one.
STATIC = Quantization(input_scales=dict.fromkeys(ADDING, 8 / 127))
FORMS = {"dynamic": Quantization(), "static": STATIC}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID, movements=3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gain"):
                parameter.uniform_(0.5, 2.0)
            if name.startswith("evidence"):
                parameter.normal_()
    return model


def _events(seed: int = 0) -> Events:
    torch.manual_seed(seed)
    return Events.from_counts(torch.poisson(torch.full((STEPS * 4, 6), 0.3)).long().numpy())


def _batch() -> EventBatch:
    samples = [_events(0), _events(1)]
    return collate(samples, n_steps=STEPS, bins_per_step=GRID.bins_per_step)


@torch.no_grad()
def _decode(model: Model) -> Tensor:
    velocity: Tensor = model(_batch(), LAST)
    return velocity[:, :, 0]


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("form", FORMS)
def test_int8_is_close_to_float(model: Model, form: str) -> None:
    small = quantized(model, FORMS[form])
    difference = _difference(_decode(small), _decode(model))
    assert 1e-4 < difference < 0.03
    int8 = {name for name, module in small.named_modules() if isinstance(module, Int8Layer)}
    assert int8 == float_layers(model).keys() and len(int8) == 17


def test_activations_are_rounded_too(model: Model) -> None:
    small = quantized(model, Quantization())
    weights_only = with_float_activations(small)
    assert set(float_layers(weights_only)) == set(float_layers(model))
    both, one, exact = _decode(small), _decode(weights_only), _decode(model)
    assert _difference(one, exact) > 1e-4
    assert _difference(one, both) > 1e-4
    for name, layer in small.named_modules():
        if isinstance(layer, Int8Layer):
            twin = weights_only.get_submodule(name)
            assert torch.equal(twin.weight, layer.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [with_float_activations, to_bfloat16])
def test_a_copy_keeps_nothing_that_was_prepared(
    model: Model, copied: Callable[[Model], Model]
) -> None:
    small = quantized(model, Quantization())
    expected = _decode(copied(small))
    assert torch.equal(_decode(copied(small.prepare())), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_streaming_equals_offline(model: Model, form: str, precision: str) -> None:
    small = quantized(model, FORMS[form])
    if precision == "bf16":
        small = to_bfloat16(small)
    offline = _decode(small).float()
    cache = StreamCache(small, 3, LAST)
    slots = torch.tensor([2, 0])
    cache.reset(slots, torch.zeros_like(slots))
    streamed = []
    with torch.no_grad():
        for step in range(STEPS):
            parts = [
                _events(seed).between(4 * step, 4 * step + 4).shifted(-4 * step) for seed in (0, 1)
            ]
            batch = collate(parts, n_steps=1, bins_per_step=GRID.bins_per_step)
            streamed.append(cache.step(slots, batch)[:, 0])
    # A sum in another order may round to the next integer, which is a step of 1/127 of one input.
    tolerance = 5e-3 if precision == "fp32" else 3e-2
    assert _difference(torch.stack(streamed, 1).float(), offline) < tolerance


def test_kept_layers_are_kept(model: Model) -> None:
    kept = ("blocks.0.up", "blocks.1.down", "cross.kv", "cross.tokenizer.unit")
    small = quantized(model, Quantization(kept=kept))
    assert small.quantization == Quantization(kept=kept)
    types = {name: tensor.dtype for name, tensor in stored_tensors(small).items()}
    exact, weights = model.state_dict(), small.state_dict()
    for name in kept:
        assert types[f"{name}.weight"] == torch.bfloat16
        rounded = exact[f"{name}.weight"].bfloat16().float()
        assert torch.equal(weights[f"{name}.weight"], rounded)
    assert types["blocks.0.project.q"] == torch.int8
    assert types["evidence.unit.weight"] == torch.float32


def test_only_neighbours_in_int8_hand_on_integers(model: Model) -> None:
    whole = quantized(model, STATIC)
    up, down = whole.blocks[0].up, whole.blocks[0].down
    assert isinstance(up, Int8NormLinear) and isinstance(down, Int8LinearAdd)
    assert up.out_scale == down.in_scale == 8 / 127

    scales = {n: s for n, s in STATIC.input_scales.items() if n != "blocks.1.down"}
    mixed = quantized(
        model, Quantization(kept=("blocks.0.up", "blocks.1.down"), input_scales=scales)
    )
    assert isinstance(mixed.blocks[0].up, NormLinear)
    assert mixed.blocks[1].up.out_scale is None  # type: ignore[union-attr]
    assert _difference(_decode(mixed), _decode(model)) < 0.03


@pytest.mark.parametrize("form", FORMS)
def test_attention_hands_on_integers_where_their_step_is_known(model: Model, form: str) -> None:
    small = quantized(model, FORMS[form])
    seen: dict[str, torch.dtype] = {}

    def note(name: str, dtype: torch.dtype) -> None:
        seen[name] = dtype

    for name in ("blocks.0.out", "blocks.1.out", "velocity.out"):
        small.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: note(name, inputs[0].dtype)
        )
    expected = torch.int8 if form == "static" else torch.float32
    _decode(small)
    assert set(seen.values()) == {expected} and len(seen) == 3
    seen.clear()
    cache = StreamCache(small, 1, LAST)
    slot = torch.tensor([0])
    cache.reset(slot, torch.zeros_like(slot))
    step = _events().between(0, 4)
    batch = collate([step], n_steps=1, bins_per_step=GRID.bins_per_step)
    with torch.no_grad():
        cache.step(slot, batch)
    assert set(seen.values()) == {expected} and len(seen) == 3


def test_what_only_training_needs_is_dropped(model: Model) -> None:
    small = quantized(model, Quantization())
    assert not any(name.startswith("masked_") for name in small.state_dict())
    masked = [p.numel() for n, p in model.named_parameters() if n.startswith("masked_")]
    gains = [p.numel() for n, p in model.named_parameters() if n.endswith("gain")]
    folded = sum(gains) - model.config.dim * 2  # The head for masked spikes has two of its own.
    assert n_weights(small) == n_weights(model) - sum(masked) - folded
    with pytest.raises(ValueError, match="dropped its head"):
        small.count_logits(small.encode(_batch()), torch.zeros((2, STEPS, 1), dtype=torch.int64))


def test_the_float_model_stays_as_it_was(model: Model) -> None:
    before = copy.deepcopy(model.state_dict())
    quantized(model, Quantization(kept=("blocks.0.up",)))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (Quantization(kept=("blocks.9.up",)), "kept names 'blocks.9.up', expected one of cross"),
        (Quantization(kept=("velocity.outputs",)), "kept names 'velocity.outputs'"),
        (
            Quantization(input_scales={n: 1.0 for n in ADDING if n != "cross.out"}),
            "input_scales.cross.out is missing",
        ),
        (
            Quantization(input_scales=dict.fromkeys((*ADDING, "blocks.0.up"), 1.0)),
            "input_scales.blocks.0.up is not for an int8 layer that adds",
        ),
        (
            Quantization(kept=("cross.out",), input_scales=dict.fromkeys(ADDING, 1.0)),
            "input_scales.cross.out is not for an int8 layer that adds",
        ),
    ],
)
def test_names_that_do_not_fit(model: Model, quantization: Quantization, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantized(model, quantization)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), "1"])
def test_scales_that_cannot_be(scale: float) -> None:
    with pytest.raises(InputError, match=r"input_scales.cross.out is .* expected a positive"):
        Quantization(input_scales={"cross.out": scale})


@pytest.mark.parametrize("values", [None, [], {"kept": []}, {"kept": "a", "input_scales": {}}])
def test_other_values_are_no_quantization(values: object) -> None:
    with pytest.raises(InputError, match="quantization"):
        Quantization.from_dict(values)


def test_a_quantization_survives_json() -> None:
    one = Quantization(kept=("cross.out",), input_scales={"velocity.out": 0.1})
    assert Quantization.from_dict(one.to_dict()) == one
