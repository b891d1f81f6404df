"""Window and step attention against dense attention under an explicit mask."""

import pytest
import torch
from torch import Tensor

from kernels.step_attention import step_attention
from kernels.window_attention import window_attention


def _dense(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    steps, m, n = q.shape[1], q.shape[2], k.shape[2]
    at_q = torch.arange(steps).repeat_interleave(m)[:, None]
    at_k = torch.arange(steps).repeat_interleave(n)
    mask = (at_k <= at_q) & (at_k > at_q - window)
    scores = torch.einsum("bqhk,behk->bhqe", q.flatten(1, 2), k.flatten(1, 2)) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    read = torch.einsum("bhqe,behk->bqhk", weights, v.flatten(1, 2))
    return read.reshape(q.shape)


def _qkv(steps: int, m: int = 2, n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, steps, count, 2, 4, dtype=torch.float64) for count in (m, n, n))
    return q, k, v


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("window", [1, 4])
def test_equals_dense_attention(steps: int, window: int) -> None:
    q, k, v = _qkv(steps)
    torch.testing.assert_close(window_attention(q, k, v, window=window), _dense(q, k, v, window))


def test_step_form_is_the_last_step_whatever_the_order_of_keys() -> None:
    q, k, v = _qkv(6)
    order = torch.randperm(6)
    mask = (order > 1).expand(2, -1)
    step = step_attention(q[:, -1], k[:, order], v[:, order], mask)
    torch.testing.assert_close(step, _dense(q, k, v, 4)[:, -1])
