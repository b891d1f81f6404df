"""Rotary position embedding over integer time bins.

Formula: the pair (a, b) = (x[2i], x[2i+1]) at position t turns by the angle 2 pi t / period_i,
so the dot product of two turned vectors depends only on the difference of their positions.
Source: Su et al. 2021, "RoFormer", arXiv:2104.09864.
"""

import math

import torch
from torch import Tensor


def rotary_periods(
    head_dim: int, *, min_period: float, max_period: float, device: torch.device
) -> Tensor:
    """(head_dim / 2,) float64 periods of the pairs, from the fastest to the slowest, in bins.

    Args:
        head_dim: width of a head, even.
        min_period: period of the fastest pair, in bins.
        max_period: period of the slowest pair, in bins.
        device: where to put them.
    """
    exponent = torch.linspace(0.0, 1.0, head_dim // 2, dtype=torch.float64, device=device)
    return min_period * (max_period / min_period) ** exponent


def phases_at(position: Tensor, period_K2: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every pair's angle.

    Args:
        position: (...) integer bins. Angles are formed in float64: in float32 a bin two hours into
            a session would be off by a sizeable part of a turn.
        period_K2: float64 periods in bins, from rotary_periods.

    Returns:
        cos and sin, each (..., K / 2) float32.
    """
    turns = torch.remainder(position.to(torch.float64).unsqueeze(-1) / period_K2, 1.0)
    angle = turns * (2 * math.pi)
    return angle.cos().float(), angle.sin().float()


def rotary_phases(
    position: Tensor, head_dim: int, *, min_period: float, max_period: float
) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (..., head_dim / 2) float32, of every pair's angle at integer bins.

    Args:
        position: (...) as phases_at's.
        head_dim: as rotary_periods'.
        min_period: likewise.
        max_period: likewise.
    """
    period_K2 = rotary_periods(
        head_dim, min_period=min_period, max_period=max_period, device=position.device
    )
    return phases_at(position, period_K2)


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
