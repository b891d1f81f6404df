"""Event attention against a loop over single events in float64."""

import math

import pytest
import torch
from torch import Tensor

from kernels.event_attention import Weighting, event_attention

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _inputs(steps: int, events: int) -> Inputs:
    g = torch.Generator().manual_seed(1)
    shape = {"q": (2, steps, 3, 2, 4), "k": (2, steps, events, 2, 4), "v": (2, steps, events, 2, 4)}
    made = {n: torch.randn(s, generator=g, dtype=torch.float64) for n, s in shape.items()}
    mask = torch.rand(2, steps, events, generator=g) < 0.6
    mask[0, : steps // 2] = False
    return made["q"], made["k"], made["v"], mask, torch.tensor([-1.0, 0.5], dtype=torch.float64)


def _slow(inputs: Inputs, n_back: int, weighting: Weighting) -> Tensor:
    q, k, v, mask, bias = inputs
    out = torch.zeros_like(q)
    for b, s, latent, h in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:4])).tolist():
        seen = [
            (t, e)
            for t in range(max(0, s - n_back + 1), s + 1)
            for e in range(k.shape[2])
            if mask[b, t, e]
        ]
        scores = [float(q[b, s, latent, h] @ k[b, t, e, h]) / 2 + float(bias[h]) for t, e in seen]
        if weighting == "sigmoid":
            weights = [1 / (1 + math.exp(-x)) for x in scores]
        else:
            total = sum(math.exp(x) for x in scores)
            weights = [math.exp(x) / total for x in scores]
        for w, (t, e) in zip(weights, seen, strict=True):
            out[b, s, latent, h] += w * v[b, t, e, h]
    return out


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("steps", "events", "n_back"), [(1, 1, 1), (5, 3, 2), (4, 2, 9)])
def test_equals_the_sum_over_events(
    weighting: Weighting, steps: int, events: int, n_back: int
) -> None:
    inputs = _inputs(steps, events)
    fast = event_attention(*inputs, n_back=n_back, weighting=weighting)
    torch.testing.assert_close(fast, _slow(inputs, n_back, weighting))


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
def test_silence_is_zero_with_finite_gradients(weighting: Weighting) -> None:
    q, k, v, mask, bias = _inputs(4, 3)
    q.requires_grad_()
    out = event_attention(q, k, v, torch.zeros_like(mask), bias, n_back=2, weighting=weighting)
    out.sum().backward()
    assert not out.any()
    assert q.grad is not None
    assert q.grad.isfinite().all()
