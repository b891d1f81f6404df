"""A linear layer's weight in 8-bit integers, with a scale an output.

Formula, for the row w of one output:

    q(w) = round(127 w / max|w|),   s(w) = max|w| / 127

Shapes: N outputs, K inputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.quantize_rows import quantize_rows_reference

# A wider sum of products of 127 could leave int32.
MOST_DEPTH = (2**31 - 1) // 127**2


class Int8Weight(NamedTuple):
    """A weight, close to q_NK * scale_N[:, None].

    Attributes:
        q_NK: (N, K) int8 within +-127, contiguous; K at most MOST_DEPTH.
        scale_N: (N,) float32, contiguous.
    """

    q_NK: Tensor
    scale_N: Tensor


def quantize_weight(weight_NK: Tensor) -> Int8Weight:
    """The weight (N, K) of any floating type, in int8."""
    return Int8Weight(*quantize_rows_reference(weight_NK.detach()))


def check_weight(weight: Int8Weight, depth: int) -> None:
    """Whether a product of rows of this depth can take the weight.

    Raises:
        ValueError: types, shapes or layouts differ from the above, or a sum could overflow.
    """
    q, scale = weight
    if q.dtype != torch.int8 or scale.dtype != torch.float32:
        raise ValueError(f"a weight is int8, its scales float32; not {q.dtype} and {scale.dtype}")
    if q.ndim != 2 or q.shape[1] != depth or scale.shape != q.shape[:1]:
        shapes = tuple(q.shape), tuple(scale.shape)
        raise ValueError(f"weight and scales are {shapes} for rows of {depth}")
    if not (q.is_contiguous() and scale.is_contiguous()):
        raise ValueError("weight and scales must be contiguous")
    if depth > MOST_DEPTH:
        raise ValueError(f"sums over {depth} columns could overflow int32: at most {MOST_DEPTH}")
