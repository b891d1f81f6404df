"""Layers with their weights in 8-bit integers: one form for each float layer, used alike.

Shapes: N outputs or rows, K inputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cortex.linear_add import LinearAdd
from cortex.norm_linear import NORM_EPS, NormLinear
from kernels.int8_linear_add import int8_linear_add
from kernels.int8_norm_linear import int8_norm_linear
from kernels.int8_weight import Int8Weight, quantize_weight
from kernels.linear_add import Rows
from kernels.norm_linear import fold
from kernels.turn import Turn


class Int8Layer(nn.Module):
    """What the forms share: the weight.

    Attributes:
        q: (N, K) int8.
        scale: (N,) float32, a step of each row.
    """

    q: Tensor
    scale: Tensor

    def __init__(self, weight_NK: Tensor) -> None:
        super().__init__()
        q, scale = quantize_weight(weight_NK)
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)

    @property
    def int8(self) -> Int8Weight:
        """The weight, as kernels take it."""
        return Int8Weight(self.q, self.scale)

    @property
    def weight(self) -> Tensor:
        """(N, K) float32, what the integers stand for."""
        return self.q * self.scale[:, None]

    def to_float(self) -> nn.Module:
        """The float layer of this weight."""
        raise NotImplementedError

    def _with_weight(self, layer: nn.Module) -> nn.Module:
        with torch.no_grad():
            layer.weight.copy_(self.weight)  # type: ignore[operator]
        return layer.to(self.q.device).eval()


class Int8NormLinear(Int8Layer):
    """NormLinear's form. The normalised rows are rounded a row at a time.

    Attributes:
        out_scale: step of results that are rounded for the next layer; None leaves them be.
    """

    def __init__(self, layer: NormLinear) -> None:
        super().__init__(fold(layer.weight.float(), layer.gain))
        self.activation = layer.activation
        self.out_scale: float | None = None

    def forward(self, x: Rows, turn: Turn | None = None) -> Tensor:
        """As NormLinear's; int8 where there is an `out_scale`."""
        return int8_norm_linear(
            x, self.int8, NORM_EPS, self.activation, turn=turn, out_scale=self.out_scale
        )

    def to_float(self) -> nn.Module:
        """The float layer of this weight."""
        outputs, inputs = self.q.shape
        return self._with_weight(NormLinear(inputs, outputs, activation=self.activation))


class Int8LinearAdd(Int8Layer):
    """LinearAdd's form.

    Attributes:
        in_scale: step of rounded inputs; None for one of each row's own.
    """

    def __init__(self, layer: LinearAdd, in_scale: float | None) -> None:
        super().__init__(layer.weight)
        self.in_scale = in_scale

    def forward(self, x: Tensor, residual: Tensor) -> Rows:
        """As LinearAdd's; x may be int8, in steps of `in_scale`."""
        return int8_linear_add(x, self.int8, residual, in_scale=self.in_scale)

    def to_float(self) -> nn.Module:
        """The float layer of this weight."""
        outputs, inputs = self.q.shape
        return self._with_weight(LinearAdd(inputs, outputs))


class Int8Linear(Int8Layer):
    """A form of nn.Linear without bias that rounds weights only: for what runs once a model."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) from (..., K)."""
        return F.linear(x, self.weight.to(x.dtype))

    def to_float(self) -> nn.Module:
        """The float layer of this weight."""
        outputs, inputs = self.q.shape
        return self._with_weight(nn.Linear(inputs, outputs, bias=False))


class Int8Embedding(Int8Layer):
    """nn.Embedding's form, for tables that are read through `weight`."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__(table.weight)

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return len(self.q)

    def to_float(self) -> nn.Module:
        """The float table of this weight."""
        return self._with_weight(nn.Embedding(*self.q.shape))
