"""Other ways to 8-bit layers, which a benchmark compares with: of plain modules, to be compiled."""

import copy
import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cortex.linear_add import LinearAdd
from cortex.model import Model
from cortex.norm_linear import NORM_EPS, NormLinear
from kernels.int8_weight import quantize_weight
from kernels.linear_add import Rows
from kernels.quantize_rows import quantize_rows_reference
from kernels.turn import Turn, turned_reference

# Products of integers take more than 16 rows.
_LEAST_ROWS = 32
# What becomes of a float layer.
Form = Callable[[nn.Linear], nn.Module]


class PlainNormLinear(nn.Module):
    """NormLinear of an nn.RMSNorm and an nn.Linear."""

    def __init__(self, layer: NormLinear, form: Form) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(layer.gain.shape, eps=NORM_EPS)
        self.norm.weight = nn.Parameter(layer.gain, requires_grad=False)
        self.linear = form(_linear(layer.weight))
        self.activation = layer.activation

    def forward(self, x: Rows, turn: Turn | None = None) -> Tensor:
        """As NormLinear's."""
        y = _of_enough_rows(self.linear, self.norm(x.x))
        if turn is not None:
            return turned_reference(y, turn)
        return y if self.activation is None else F.gelu(y, approximate="tanh")


class PlainLinearAdd(nn.Module):
    """LinearAdd of an nn.Linear, which takes floats."""

    in_scale = None

    def __init__(self, layer: LinearAdd, form: Form) -> None:
        super().__init__()
        self.linear = form(_linear(layer.weight))

    def forward(self, x: Tensor, residual: Tensor) -> Rows:
        """As LinearAdd's."""
        return Rows(residual + _of_enough_rows(self.linear, x))


class IntMmLinear(nn.Module):
    """An nn.Linear whose weight and rows are in int8, by PyTorch's own product of integers."""

    q: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        q, scale = quantize_weight(layer.weight)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) from (..., K), of _LEAST_ROWS at least."""
        q, scale = quantize_rows_reference(x)
        total = torch._int_mm(q.flatten(0, -2), self.q.t()).view(*x.shape[:-1], -1)
        return (total * scale[..., None] * self.scale).to(x.dtype)


def with_int_mm(model: Model) -> Model:
    """A copy of a float model with int8 layers that use torch._int_mm."""
    return _with_plain_layers(model, IntMmLinear)


def torchao_is_here() -> bool:
    """Whether torchao can be imported."""
    return importlib.util.find_spec("torchao") is not None


def with_torchao(model: Model) -> Model:
    """A copy of a float model with torchao's int8 layers. Raises ImportError without torchao."""
    torchao = importlib.import_module("torchao.quantization")

    def quantise(linear: nn.Linear) -> nn.Module:
        torchao.quantize_(linear, torchao.Int8DynamicActivationInt8WeightConfig())
        return linear

    return _with_plain_layers(model, quantise)


def _with_plain_layers(model: Model, form: Form) -> Model:
    model = copy.deepcopy(model).eval()
    model.drop_masked_spikes()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, NormLinear):
            model.set_submodule(name, PlainNormLinear(layer, form))
        elif isinstance(layer, LinearAdd):
            model.set_submodule(name, PlainLinearAdd(layer, form))
    return model


def _of_enough_rows(linear: nn.Module, x_MK: Tensor) -> Tensor:
    """What a layer makes of rows (..., K), of which it may have to be given some more."""
    rows = x_MK.flatten(0, -2)
    # Those of a start or a query, once a model.
    missing = max(_LEAST_ROWS - len(rows), 0)
    y: Tensor = linear(F.pad(rows, (0, 0, 0, missing)) if missing else x_MK)
    return y[: len(rows)].view(*x_MK.shape[:-1], -1) if missing else y


def _linear(weight: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    linear = nn.Linear(inputs, outputs, bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
