"""Quantised rows against their definition, in Triton's interpreter where there is no GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import quantize_rows as op

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6
SHAPES = [(1, 1), (5, 32), (3, 7, 24), (9, 100), (2, 3000)]


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, **options: Any) -> Tensor:
        value = -128 if dtype == torch.int8 else math.nan
        return torch.full(shape, value, dtype=dtype, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _rows(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    size = torch.logspace(-3, 3, max(shape[-2], 1))[: shape[-2], None]
    return (torch.randn(shape) * size).to(DEVICE, dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_equal_the_reference_to_the_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = _rows(shape, dtype)
    q, scale = op.quantize_rows_triton(x)
    expected_q, expected_scale = op.quantize_rows_reference(x)
    assert torch.equal(q, expected_q)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(op.quantize_with_triton(x, 0.02), op.quantize_with_reference(x, 0.02))


def test_quantised_rows_are_within_half_a_step() -> None:
    x = _rows((20, 64))
    q, scale = op.quantize_rows_triton(x)
    step = scale.double()[:, None]
    error = (q.double() * step - x.double()).abs()
    # Plus what float32 rounds off the scale and the quotient.
    assert (error <= step * (0.5 + 127 * 2**-22)).all()
    assert (q.abs().amax(-1) == 127).all()


@pytest.mark.parametrize("form", [op.quantize_with_triton, op.quantize_with_reference])
def test_a_given_scale_clips_what_is_beyond_it(form: Any) -> None:
    x = torch.tensor([[0.0, 0.24, 0.26, -0.26, 63.5, 64.0, 1e30, -1e30]], device=DEVICE)
    assert form(x, 0.5).tolist() == [[0, 0, 1, -1, 127, 127, 127, -127]]


@pytest.mark.parametrize("form", [op.quantize_rows_triton, op.quantize_rows_reference])
def test_ties_go_to_even(form: Any) -> None:
    # With the largest value 127 a value is its own quotient.
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]], device=DEVICE)
    assert form(x)[0].tolist() == [[127, 0, 2, 2, 0, -2, -2, 126]]


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, -1e-31])
def test_rows_of_next_to_nothing_are_zero(value: float) -> None:
    x = _rows((6, 32))
    x[2] = value
    for form in (op.quantize_rows_triton, op.quantize_rows_reference):
        q, scale = form(x)
        assert not q[2].any()
        assert scale[2] == 0
        assert q[[1, 3]].abs().amax(-1).tolist() == [127, 127]


@pytest.mark.parametrize("shape", [(5, 32), (3, 7, 24), (9, 100), (3, 600)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_normalised_rows_are_within_half_a_step(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = _rows(shape, dtype)
    exact = F.rms_norm(x.double(), x.shape[-1:], None, EPS)
    for form in (op.rms_norm_quantize_rows_triton, op.rms_norm_quantize_rows_reference):
        q, scale = form(x, EPS)
        step = scale.double()[..., None]
        assert ((q.double() * step - exact).abs() <= step * (0.5 + 127 * 2**-20)).all()
        assert (q.abs().amax(-1) == 127).all()


@pytest.mark.parametrize("first", [0, 3])
def test_rows_may_be_part_of_wider_ones(first: int) -> None:
    x = _rows((20, 64))
    wide = torch.full((20, 80), torch.nan, device=DEVICE)
    view = wide[:, first : first + 64]
    view.copy_(x)
    for ours, plain in zip(op.quantize_rows_triton(view), op.quantize_rows_triton(x), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("shape", [(0, 32), (4, 0, 32), (4, 0)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, device=DEVICE)
    for form in (op.quantize_rows_triton, op.quantize_rows_reference):
        q, scale = form(x)
        assert (q.shape, scale.shape) == (x.shape, x.shape[:-1])
        assert not scale.any()
    assert op.quantize_with_triton(x, 1.0).shape == shape


def test_rows_with_gaps_between_their_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="contiguous in K"):
        op.quantize_rows_triton(_rows((8, 8)).t())


def test_the_norm_changes_the_scales_alone() -> None:
    x = _rows((6, 32), torch.bfloat16)
    q, scale = op.quantize_rows_triton(x)
    normed, normed_scale = op.rms_norm_quantize_rows_triton(x, EPS)
    assert torch.equal(normed, q)
    assert not torch.equal(normed_scale, scale)
