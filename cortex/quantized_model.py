"""A model's layers in 8-bit integers."""

import copy

import torch
from torch import Tensor, nn

from cortex.errors import InputError
from cortex.int8_layers import (
    Int8Embedding,
    Int8Layer,
    Int8Linear,
    Int8LinearAdd,
    Int8NormLinear,
)
from cortex.linear_add import LinearAdd
from cortex.model import Model
from cortex.norm_linear import NormLinear
from cortex.quantization import Quantization

# Where the weights are. The rest is small, and the last layer and the evidence decide.
_PARTS = ("cross.", "blocks.", "velocity.")


def float_layers(model: Model) -> dict[str, nn.Module]:
    """The layers of a float model that have an int8 form, by name, in the order of their use."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(_PARTS)
        and (
            isinstance(module, NormLinear | LinearAdd | nn.Embedding)
            or (isinstance(module, nn.Linear) and module.bias is None)
        )
    }


def int8_form(layer: nn.Module, in_scale: float | None = None) -> Int8Layer:
    """One of `float_layers` in int8.

    Args:
        layer: the layer.
        in_scale: step of the rounded inputs of a LinearAdd; None for one of each row's own.
    """
    match layer:
        case NormLinear():
            return Int8NormLinear(layer)
        case LinearAdd():
            return Int8LinearAdd(layer, in_scale)
        case nn.Embedding():
            return Int8Embedding(layer)
        case nn.Linear():
            return Int8Linear(layer)
    raise TypeError(f"{type(layer).__name__} has no int8 form")


def quantized(model: Model, quantization: Quantization) -> Model:
    """A copy of a float model in int8. Raises InputError as `quantize_layers`."""
    model = copy.deepcopy(model).eval()
    quantize_layers(model, quantization)
    return model


@torch.no_grad()
def quantize_layers(model: Model, quantization: Quantization) -> None:
    """Replaces a float model's layers by their int8 forms, and drops what only training needs.

    Layers that are kept lose what bfloat16 cannot hold.

    Raises:
        InputError: a name is not that of such a layer, or a scale is missing or too many.
    """
    layers = float_layers(model)
    _check_names(layers, quantization)
    model.drop_masked_spikes()
    for name, layer in layers.items():
        if name in quantization.kept:
            weight: Tensor = layer.weight  # type: ignore[assignment]
            weight.copy_(weight.bfloat16())
        else:
            model.set_submodule(name, int8_form(layer, quantization.input_scales.get(name)))
    for block in model.latent_blocks():
        up, down = block.up, block.down
        # Handed on as integers, which saves writing them in a wider type and rounding them later.
        if isinstance(up, Int8NormLinear) and isinstance(down, Int8LinearAdd):
            up.out_scale = down.in_scale
    model.quantization = quantization


def with_float_activations(model: Model) -> Model:
    """A float copy of an int8 model: the same weights, to the bit, and inputs that are not rounded.

    For comparisons; it takes as much memory as a float model.
    """
    # In evaluation anew, so that nothing that was prepared with rounded inputs stays.
    model = copy.deepcopy(model).eval()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Int8Layer):
            model.set_submodule(name, layer.to_float())
    model.quantization = None
    return model


def n_weights(model: Model) -> int:
    """How many numbers were learnt, whatever type they are in."""
    int8 = [m.q.numel() for m in model.modules() if isinstance(m, Int8Layer)]
    return sum(int8) + sum(p.numel() for p in model.parameters())


def stored_tensors(model: Model) -> dict[str, Tensor]:
    """The model's tensors in the types that a checkpoint has them in."""
    kept = {f"{name}.weight" for name in model.quantization.kept} if model.quantization else set()
    return {
        name: tensor.detach().bfloat16() if name in kept else tensor.detach()
        for name, tensor in model.state_dict().items()
    }


def _check_names(layers: dict[str, nn.Module], quantization: Quantization) -> None:
    for name in quantization.kept:
        if name not in layers:
            raise InputError(
                f"quantization: kept names {name!r}, expected one of {', '.join(layers)}"
            )
    scales = quantization.input_scales
    adding = {n for n, layer in layers.items() if isinstance(layer, LinearAdd)}
    adding -= set(quantization.kept)
    for name in sorted(scales.keys() ^ adding if scales else ()):
        found = "is missing" if name in adding else "is not for an int8 layer that adds"
        raise InputError(f"quantization: input_scales.{name} {found}")
