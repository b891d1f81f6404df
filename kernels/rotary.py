"""Rotary position embedding over integer time bins.

Formula: the pair (a, b) = (x[2i], x[2i+1]) at position t turns by the angle 2 pi t / period_i,
so the dot product of two turned vectors depends only on the difference of their positions.
Source: Su et al. 2021, "RoFormer", arXiv:2104.09864.
"""

import math

import torch
from torch import Tensor


def rotary_phases(
    position: Tensor, head_dim: int, *, min_period: float, max_period: float
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every pair's angle.

    Args:
        position: (...) integer bins. Angles are formed in float64: in float32 a bin two hours into
            a session would be off by a sizeable part of a turn.
        head_dim: width of a head, even.
        min_period: period of the fastest pair, in bins.
        max_period: period of the slowest pair, in bins.

    Returns:
        cos and sin, each (..., head_dim / 2) float32.
    """
    exponent = torch.linspace(0.0, 1.0, head_dim // 2, dtype=torch.float64, device=position.device)
    period = min_period * (max_period / min_period) ** exponent
    turns = torch.remainder(position.to(torch.float64).unsqueeze(-1) / period, 1.0)
    angle = turns * (2 * math.pi)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, phases: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs of every head.

    Args:
        x: (..., H, K) queries or keys.
        phases: cos and sin, (..., K / 2), from rotary_phases.

    Returns:
        (..., H, K), of x's type.
    """
    cos, sin = (p.unsqueeze(-2).to(x.dtype) for p in phases)
    cos, sin = cos.repeat_interleave(2, -1), torch.stack((-sin, sin), -1).flatten(-2)
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin)
