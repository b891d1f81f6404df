"""Window and step attention against dense attention under an explicit mask."""

import functools
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
from kernels.quantize_rows import quantize_with_reference
from kernels.step_attention import step_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = op.WindowConfig(block_rows=16, block_keys=16, warps=1, stages=1)
TALL = op.WindowConfig(block_rows=64, block_keys=32, warps=4, stages=2)
TMA = op.WindowConfig(block_rows=64, block_keys=64, warps=4, stages=2, tma=True)
Shape = tuple[int, int, int, int, int, int]


def _dense(
    q: Tensor, k: Tensor, v: Tensor, window: int, start: op.KeysValues | None = None
) -> Tensor:
    steps, m, n = q.shape[1], q.shape[2], k.shape[2]
    at_q = torch.arange(steps, device=q.device).repeat_interleave(m)[:, None]
    at_k = torch.arange(steps, device=q.device)
    if start is not None:
        k, v = (
            torch.cat((x.to(y).expand(len(y), 1, -1, -1, -1), y), 1)
            for x, y in zip(start, (k, v), strict=True)
        )
        at_k = torch.arange(-1, steps, device=q.device)
    at_k = at_k.repeat_interleave(n)
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
@pytest.mark.parametrize("starts", [False, True])
def test_reference_equals_dense_attention(steps: int, window: int, starts: bool) -> None:
    q, k, v = _qkv(steps)
    start = op.KeysValues(*torch.randn(2, 3, 2, 4, dtype=torch.float64)) if starts else None
    read = op.window_attention_reference(q, k, v, window=window, start=start)
    torch.testing.assert_close(read, _dense(q, k, v, window, start))


def test_step_form_is_the_last_step_whatever_the_order_of_keys() -> None:
    q, k, v = _qkv(6)
    order = torch.randperm(6)
    mask = (order > 1).expand(2, -1)
    step = step_attention(q[:, -1], k[:, order], v[:, order], mask)
    torch.testing.assert_close(step, _dense(q, k, v, 4)[:, -1])


class Case:
    """The operator's inputs, and its answer in float64."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        """Makes inputs of a shape (B, S, M, L, H, K); packed as one projection where M = L."""
        torch.manual_seed(0)
        batch, steps, m, n, heads, dim = shape
        packed = torch.randn(batch, steps, n, 3, heads, dim, device=DEVICE).to(dtype)
        self.q, self.k, self.v = packed.unbind(3)
        if m != n:
            self.q = torch.randn(batch, steps, m, heads, dim, device=DEVICE).to(dtype)
        self.start: op.KeysValues | None = None

    def begin(self) -> None:
        """Puts a start before the first step."""
        like = self.k[0, 0]
        self.start = op.KeysValues(torch.randn_like(like), torch.randn_like(like))

    def fused(self, window: int, config: op.WindowConfig | None = None) -> Tensor:
        """The kernel's answer."""
        return op.window_attention_triton(
            self.q, self.k, self.v, window=window, start=self.start, config=config
        )

    def exact(self, window: int) -> Tensor:
        """Dense attention in float64."""
        return _dense(self.q.double(), self.k.double(), self.v.double(), window, self.start)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

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


def _assert_close(read: Tensor, exact: Tensor) -> None:
    """Within the rounding of the type of what was read."""
    if read.dtype == torch.bfloat16:
        # Rounded weights and results move by some 2^-8 of the values, which are of order one.
        torch.testing.assert_close(read.double(), exact, rtol=2**-7, atol=2e-2)
    else:
        torch.testing.assert_close(read.double(), exact, rtol=5e-6, atol=1e-5)


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("config", [None, SMALL, TALL])
@torch.no_grad()
def test_kernel_equals_float64(shape: Shape, window: int, config: op.WindowConfig | None) -> None:
    case = Case(shape)
    fused = case.fused(window, config)
    assert fused.is_contiguous()
    _assert_close(fused, case.exact(window))


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("config", [None, TALL, TMA])
@torch.no_grad()
def test_bfloat16_is_within_its_rounding(
    shape: Shape, window: int, config: op.WindowConfig | None
) -> None:
    case = Case(shape, torch.bfloat16)
    fused = case.fused(window, config)
    assert fused.dtype == torch.bfloat16
    _assert_close(fused, case.exact(window))


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("last", [1, 3])
@pytest.mark.parametrize("config", [None, TALL, TMA])
@pytest.mark.parametrize("starts", [False, True])
@torch.no_grad()
def test_queries_may_be_of_the_last_steps_alone(
    shape: Shape, window: int, last: int, config: op.WindowConfig | None, starts: bool
) -> None:
    case = Case(shape, torch.bfloat16)
    if starts:
        case.begin()
    exact = case.exact(window)[:, -last:]
    case.q = case.q[:, -last:]
    _assert_close(case.fused(window, config), exact)
    wide = (x.double() for x in (case.q, case.k, case.v))
    start = None if case.start is None else op.KeysValues(*(x.double() for x in case.start))
    read = op.window_attention_reference(*wide, window=window, start=start)
    torch.testing.assert_close(read, exact)


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("config", [None, SMALL, TMA])
@torch.no_grad()
def test_a_start_is_seen_by_the_first_steps(
    shape: Shape, window: int, config: op.WindowConfig | None
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        case = Case(shape, dtype)
        without = case.fused(window, config)
        case.begin()
        read = case.fused(window, config)
        _assert_close(read, case.exact(window))
        torch.testing.assert_close(read[:, window - 1 :], without[:, window - 1 :])
        assert window == 1 or not torch.equal(read[:, 0], without[:, 0])


@torch.no_grad()
def test_a_start_of_another_shape_is_refused() -> None:
    case = Case((1, 3, 2, 2, 1, 32))
    case.begin()
    assert case.start is not None
    case.start = op.KeysValues(*(x[:1] for x in case.start))
    with pytest.raises(ValueError, match="a start"):
        case.fused(4)


@torch.no_grad()
def test_queries_of_more_steps_than_keys_are_refused() -> None:
    case = Case((1, 3, 2, 2, 1, 32))
    case.k, case.v = case.k[:, 1:], case.v[:, 1:]
    with pytest.raises(ValueError, match="queries of 3 steps"):
        case.fused(4)


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("config", [SMALL, TMA])
@pytest.mark.parametrize("form", ["torch", "triton"])
@torch.no_grad()
def test_a_scale_gives_int8(shape: Shape, window: int, config: op.WindowConfig, form: str) -> None:
    case = Case(shape)
    # Of values of order one, some are clipped.
    inputs, scale = (case.q, case.k, case.v), 1 / 127
    if form == "torch":
        read = op.window_attention_reference(*inputs, window=window, out_scale=scale)
    else:
        read = op.window_attention_triton(*inputs, window=window, out_scale=scale, config=config)
    assert read.dtype == torch.int8
    steps = (127 * case.exact(window)).clamp(-127, 127)
    assert (steps.abs() == 127).any()
    assert ((read.double() - steps).abs() <= 0.5 + 127 * 1e-5).all()


@torch.no_grad()
def test_many_sequences_take_large_blocks() -> None:
    chosen = op.window_config(256, 264, 272, torch.bfloat16)
    assert chosen.block_rows >= 64
    case = Case((2, 33, 8, 8, 2, 64), torch.bfloat16)
    _assert_close(case.fused(32, chosen), case.exact(32))


@torch.no_grad()
def test_many_sequences_of_few_rows_take_small_tiles() -> None:
    chosen = op.window_config(256, 33, 160, torch.bfloat16)
    case = Case((2, 33, 1, 8, 2, 64), torch.bfloat16)
    _assert_close(case.fused(4, chosen), case.exact(4))


@torch.no_grad()
def test_queries_may_be_the_same_in_every_sample() -> None:
    case = Case((3, 6, 5, 8, 2, 32))
    case.q = case.q[:1].expand_as(case.q)
    assert case.q.stride(0) == 0
    _assert_close(case.fused(4), case.exact(4))


@torch.no_grad()
def test_queries_may_be_one_step_repeated() -> None:
    for queries in (1, 3):
        case = Case((2, 6, queries, 8, 2, 32))
        case.q = case.q[:1, :1].expand_as(case.q)
        _assert_close(case.fused(4), case.exact(4))


@torch.no_grad()
def test_rows_unevenly_spaced_or_unaligned_are_read_all_the_same() -> None:
    case = Case((2, 7, 4, 6, 2, 32), torch.bfloat16)
    case.k, case.v = case.k[:, :, 1:], case.v[:, :, 1:]
    _assert_close(case.fused(4, TMA), case.exact(4))
    wide = torch.nn.functional.pad(case.v, (4, 0))
    case.v = wide[..., 4:]
    _assert_close(case.fused(4, TMA), case.exact(4))


@torch.no_grad()
def test_what_lies_outside_the_window_does_not_matter() -> None:
    case = Case((1, 12, 2, 3, 1, 32))
    before = case.fused(4, SMALL)
    for x in (case.k, case.v):
        x[:, :5] = torch.nan
    after = case.fused(4, SMALL)
    torch.testing.assert_close(after[:, 11:], before[:, 11:], rtol=0, atol=0)


@pytest.mark.parametrize("config", [TALL, TMA])
@torch.no_grad()
def test_other_samples_do_not_matter(config: op.WindowConfig) -> None:
    case = Case((3, 6, 4, 4, 2, 32), torch.bfloat16)
    before = case.fused(4, config)
    for x in (case.k, case.v):
        x[::2] = torch.nan
    after = case.fused(4, config)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4, 2, 32), (2, 0, 4, 4, 2, 32), (2, 3, 0, 4, 2, 32)])
@torch.no_grad()
def test_nothing_asked_is_nothing_read(shape: Shape) -> None:
    case = Case(shape)
    assert case.fused(4).shape == case.q.shape


@torch.no_grad()
def test_dispatch_takes_either_form() -> None:
    case = Case((2, 6, 4, 4, 2, 32))
    case.begin()
    read_by = functools.partial(
        op.window_attention, case.q, case.k, case.v, window=4, start=case.start
    )
    for form in ("torch", "triton"):
        with forced(form):
            read, steps = read_by(), read_by(out_scale=0.01)
        _assert_close(read, case.exact(4))
        assert torch.equal(steps, quantize_with_reference(read, 0.01))


def test_gradients_take_the_reference() -> None:
    case = Case((1, 3, 2, 2, 1, 32))
    q = case.q.detach().clone().requires_grad_()
    start = op.KeysValues(*(torch.randn(2, 1, 32, device=DEVICE).requires_grad_() for _ in "kv"))
    op.window_attention(q, case.k, case.v, window=4, start=start).sum().backward()
    for leaf in (q, *start):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


@pytest.mark.parametrize(("dim", "dtype"), [(48, torch.float32), (32, torch.float64)])
def test_heads_that_the_kernel_does_not_take_are_refused(dim: int, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="no kernel"):
        Case((1, 2, 2, 2, 1, dim), dtype).fused(4)
