"""Window and step attention against dense attention under an explicit mask."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import window_attention as op
from kernels.dispatch import forced
from kernels.rotary import rotary_phases, rotate
from kernels.step_attention import step_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = op.WindowConfig(block_rows=16, block_keys=16, num_warps=1, num_stages=1)


def _dense(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    steps, m, n = q.shape[1], q.shape[2], k.shape[2]
    at_q = torch.arange(steps, device=q.device).repeat_interleave(m)[:, None]
    at_k = torch.arange(steps, device=q.device).repeat_interleave(n)
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
    torch.testing.assert_close(op.window_attention(q, k, v, window=window), _dense(q, k, v, window))


def test_step_form_is_the_last_step_whatever_the_order_of_keys() -> None:
    q, k, v = _qkv(6)
    order = torch.randperm(6)
    mask = (order > 1).expand(2, -1)
    step = step_attention(q[:, -1], k[:, order], v[:, order], mask)
    torch.testing.assert_close(step, _dense(q, k, v, 4)[:, -1])


class Case:
    """Inputs of the rotary form, and its answer in float64."""

    def __init__(
        self,
        shape: tuple[int, int, int, int, int, int],
        dtype: torch.dtype = torch.float32,
        samples_differ: bool = True,
    ) -> None:
        """Makes inputs of a shape (B, S, M, L, H, K); packed as one projection where M = L."""
        torch.manual_seed(0)
        batch, steps, m, n, heads, dim = shape
        packed = torch.randn(batch, steps, n, 3, heads, dim, device=DEVICE).to(dtype)
        self.q, self.k, self.v = packed.unbind(3)
        if m != n:
            self.q = torch.randn(batch, steps, m, heads, dim, device=DEVICE).to(dtype)
        step = torch.arange(steps, device=DEVICE)[:, None]
        if samples_differ:
            step = step + torch.randint(1000, (batch, 1, 1), device=DEVICE)
        else:
            step = step[None]
        query = torch.arange(m, device=DEVICE) if m != n else 0
        self.q_phases, self.k_phases = (
            rotary_phases(t, dim, min_period=4.0, max_period=5000.0)
            for t in (step * 20 + query, step * 20)
        )

    def fused(self, window: int, config: op.WindowConfig | None = None) -> Tensor:
        """The kernel's answer."""
        phases = self.q_phases, self.k_phases
        return op.rotary_window_attention_triton(
            self.q, self.k, self.v, *phases, window=window, config=config
        )

    def exact(self, window: int) -> Tensor:
        """Dense attention in float64."""
        q, k = (
            rotate(x.double(), (cos.double(), sin.double()))
            for x, (cos, sin) in ((self.q, self.q_phases), (self.k, self.k_phases))
        )
        return _dense(q, k, self.v.double(), window)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, math.nan, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


SHAPES = [
    ((1, 1, 3, 3, 1, 32), 4),
    ((2, 7, 4, 4, 2, 64), 32),
    ((1, 33, 8, 8, 1, 32), 32),
    ((1, 70, 2, 2, 1, 32), 32),
    ((2, 9, 1, 8, 2, 32), 4),
    ((1, 6, 12, 12, 2, 64), 3),
    ((1, 40, 4, 5, 1, 32), 2),
    ((1, 20, 5, 1, 1, 32), 1),
]


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("config", [None, SMALL, SMALL._replace(block_rows=32)])
@torch.no_grad()
def test_kernel_equals_float64(
    shape: tuple[int, int, int, int, int, int], window: int, config: op.WindowConfig | None
) -> None:
    case = Case(shape)
    fused = case.fused(window, config)
    assert fused.is_contiguous()
    torch.testing.assert_close(fused.double(), case.exact(window), rtol=5e-6, atol=1e-5)


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@torch.no_grad()
def test_bfloat16_is_within_its_rounding(
    shape: tuple[int, int, int, int, int, int], window: int
) -> None:
    case = Case(shape, torch.bfloat16)
    fused = case.fused(window)
    assert fused.dtype == torch.bfloat16
    # Rounded q, k and weights move the result by some 2^-8 of the values, which are of order one.
    torch.testing.assert_close(fused.double(), case.exact(window), rtol=2**-7, atol=2e-2)


@torch.no_grad()
def test_phases_may_be_shared_by_samples_and_cut_from_larger_ones() -> None:
    case = Case((3, 5, 4, 4, 2, 32), samples_differ=False)
    assert case.q_phases[0].shape[0] == 1
    torch.testing.assert_close(case.fused(3).double(), case.exact(3), rtol=5e-6, atol=1e-5)
    whole = Case((3, 7, 4, 4, 2, 32))
    case.q_phases = case.k_phases = (whole.q_phases[0][:, 2:], whole.q_phases[1][:, 2:].clone())
    torch.testing.assert_close(case.fused(3).double(), case.exact(3), rtol=5e-6, atol=1e-5)


@torch.no_grad()
def test_queries_may_be_one_step_repeated() -> None:
    case = Case((2, 6, 1, 8, 2, 32))
    case.q = case.q[:1, :1].expand_as(case.q)
    torch.testing.assert_close(case.fused(4).double(), case.exact(4), rtol=5e-6, atol=1e-5)


@torch.no_grad()
def test_what_lies_outside_the_window_does_not_matter() -> None:
    case = Case((1, 12, 2, 3, 1, 32))
    before = case.fused(4, SMALL)
    for x in (case.k, case.v):
        x[:, :5] = torch.nan
    after = case.fused(4, SMALL)
    torch.testing.assert_close(after[:, 11:], before[:, 11:], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4, 2, 32), (2, 0, 4, 4, 2, 32), (2, 3, 0, 4, 2, 32)])
@torch.no_grad()
def test_nothing_asked_is_nothing_read(shape: tuple[int, int, int, int, int, int]) -> None:
    case = Case(shape)
    assert case.fused(4).shape == case.q.shape


@torch.no_grad()
def test_dispatch_takes_either_form() -> None:
    case = Case((2, 6, 4, 4, 2, 32))
    for form in ("torch", "triton"):
        with forced(form):
            read = op.rotary_window_attention(
                case.q, case.k, case.v, case.q_phases, case.k_phases, window=4
            )
        torch.testing.assert_close(read.double(), case.exact(4), rtol=5e-6, atol=1e-5)


def test_gradients_take_the_reference() -> None:
    case = Case((1, 3, 2, 2, 1, 32))
    q = case.q.detach().clone().requires_grad_()
    op.rotary_window_attention(
        q, case.k, case.v, case.q_phases, case.k_phases, window=4
    ).sum().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


@pytest.mark.parametrize(("dim", "dtype"), [(48, torch.float32), (32, torch.float64)])
def test_heads_that_the_kernel_cannot_turn_are_refused(dim: int, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="no kernel"):
        Case((1, 2, 2, 2, 1, dim), dtype).fused(4)
