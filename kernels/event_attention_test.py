"""Event attention against a loop over single events in float64."""

import math

import pytest
import torch
from torch import Tensor

from kernels.event_attention import (
    EventTables,
    Weighting,
    event_sums,
    event_tables,
    normalise,
    sum_lags,
)

ROWS, HEADS, LATENTS, WIDTH = 7, 2, 3, 4


def _inputs(n_lags: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return (
        normal(n_lags, LATENTS, HEADS, WIDTH),
        normal(ROWS, HEADS, WIDTH),
        normal(ROWS, HEADS, WIDTH),
        torch.tensor([-1.0, 0.5], dtype=torch.float64),
    )


def _events(steps: int, events: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    mask = torch.rand(2, steps, events, generator=g) < 0.6
    mask[0, : steps // 2] = False
    return torch.randint(ROWS, (2, steps, events), generator=g), mask


def _fast(row: Tensor, mask: Tensor, tables: EventTables, weighting: Weighting) -> Tensor:
    return normalise(sum_lags(event_sums(row, mask, tables)), weighting)


def _slow(
    row: Tensor, mask: Tensor, inputs: tuple[Tensor, Tensor, Tensor, Tensor], weighting: Weighting
) -> Tensor:
    q, k, v, bias = inputs
    out = torch.zeros(*row.shape[:2], HEADS, LATENTS, WIDTH, dtype=torch.float64)
    for b, s, h, latent in torch.cartesian_prod(*(torch.arange(n) for n in out.shape[:4])).tolist():
        seen = [
            (j, int(row[b, s - j, e]))
            for j in range(min(len(q), s + 1))
            for e in range(row.shape[2])
            if mask[b, s - j, e]
        ]
        scores = [float(q[j, latent, h] @ k[r, h]) / 2 + float(bias[h]) for j, r in seen]
        if weighting == "sigmoid":
            weights = [1 / (1 + math.exp(-x)) for x in scores]
        else:
            total = sum(math.exp(x) for x in scores)
            weights = [math.exp(x) / total for x in scores]
        for w, (_, r) in zip(weights, seen, strict=True):
            out[b, s, h, latent] += w * v[r, h]
    return out


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("steps", "events", "n_lags"), [(1, 1, 1), (5, 3, 2), (4, 2, 9)])
def test_equals_the_sum_over_events(
    weighting: Weighting, steps: int, events: int, n_lags: int
) -> None:
    inputs = _inputs(n_lags)
    row, mask = _events(steps, events)
    fast = _fast(row, mask, event_tables(*inputs, weighting), weighting)
    torch.testing.assert_close(fast, _slow(row, mask, inputs, weighting))


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
def test_silence_is_zero_with_finite_gradients(weighting: Weighting) -> None:
    q, k, v, bias = _inputs(2)
    q.requires_grad_()
    row, mask = _events(4, 3)
    out = _fast(row, torch.zeros_like(mask), event_tables(q, k, v, bias, weighting), weighting)
    out.sum().backward()
    assert not out.any()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_extreme_scores_stay_finite() -> None:
    q, k, v, bias = (x.float() for x in _inputs(2))
    row, mask = _events(4, 3)
    out = _fast(row, mask, event_tables(q * 1e4, k, v, bias, "softmax"), "softmax")
    assert out.isfinite().all()
