"""Attention within one window: run on a GPU, compiled for Hopper where there is none."""

import math

import pytest
import torch
from torch import Tensor

from kernels import one_window as op
from kernels.gluon_compilation_for_tests import check_compiles
from kernels.hopper_for_tests import DEVICE, compiles, needs_hopper
from kernels.window_attention import KeysValues, window_attention_reference, window_attention_triton

# (B, S, L, H, K).
FEW = [
    (1, 32, 8, 8, 64),
    (8, 32, 8, 8, 64),
    (3, 32, 4, 4, 64),
    (2, 24, 8, 2, 32),
    (2, 8, 16, 1, 64),
]
MANY = [(32, 32, 8, 8, 64), (70, 32, 4, 4, 64), (96, 24, 8, 2, 32), (192, 8, 16, 1, 64)]
SHAPES = FEW + MANY


Inputs = tuple[Tensor, Tensor, Tensor]


def _inputs(shape: tuple[int, ...], large: float = 1.0) -> tuple[Inputs, KeysValues]:
    torch.manual_seed(0)
    samples, steps, rows, heads, width = shape
    packed = large * torch.randn(samples, steps, rows, 3, heads, width, device=DEVICE)
    start = large * torch.randn(2, rows, heads, width, device=DEVICE)
    q, k, v = packed.bfloat16().unbind(3)
    return (q, k, v), KeysValues(*start.bfloat16())


def _exact(inputs: Inputs, start: KeysValues, window: int) -> Tensor:
    q, k, v = (x.double() for x in inputs)
    before = KeysValues(*(x.double() for x in start))
    return window_attention_reference(q, k, v, window=window, start=before)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no quantised one."""
    empty = torch.empty

    def poisoned(*shape: object, dtype: torch.dtype, **options: object) -> Tensor:
        out: Tensor = empty(*shape, dtype=dtype, **options)  # type: ignore[call-overload]
        return out.fill_(-128 if dtype == torch.int8 else math.nan)

    monkeypatch.setattr(torch, "empty", poisoned)


@needs_hopper
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("more", [0, 1, 9])
@pytest.mark.parametrize("large", [1.0, 12.0])
def test_equals_float64(shape: tuple[int, ...], more: int, large: float) -> None:
    inputs, start = _inputs(shape, large)
    window = shape[1] + more
    assert op.serves(*inputs, window)
    read = window_attention_triton(*inputs, window=window, start=start)
    exact = _exact(inputs, start, window)
    torch.testing.assert_close(read.double(), exact, rtol=2**-7, atol=2e-2 * large)


@needs_hopper
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_scale_gives_int8(shape: tuple[int, ...]) -> None:
    inputs, start = _inputs(shape)
    scale, window = 1 / 127, shape[1]
    read = window_attention_triton(*inputs, window=window, start=start, out_scale=scale)
    assert read.dtype == torch.int8
    steps = (127 * _exact(inputs, start, window)).clamp(-127, 127)
    assert (steps.abs() == 127).any()
    # Weights are rounded to bfloat16, and values of order one are 127 steps.
    torch.testing.assert_close(read.double(), steps, rtol=2**-7, atol=0.5 + 127 * 2e-2)
    assert (read.double() - steps).abs().mean() < 0.4


@needs_hopper
@pytest.mark.parametrize("samples", [6, 32])
def test_other_samples_and_heads_do_not_matter(samples: int) -> None:
    inputs, start = _inputs((samples, 32, 8, 8, 64))
    before = window_attention_triton(*inputs, window=32, start=start)
    for x in inputs:
        x[::2] = torch.nan
        x[:, :, :, 1] = torch.nan
    after = window_attention_triton(*inputs, window=32, start=start)
    assert torch.equal(after[1::2, :, :, 0], before[1::2, :, :, 0])
    assert torch.equal(after[1::2, :, :, 2:], before[1::2, :, :, 2:])


@needs_hopper
def test_what_it_cannot_read_in_place_goes_elsewhere() -> None:
    inputs, start = _inputs((6, 32, 8, 8, 64))
    q, k, v = inputs
    uneven = q, k, v.transpose(2, 3).contiguous().transpose(2, 3)
    assert not op.serves(*uneven, 32)
    read = window_attention_triton(*uneven, window=32, start=start)
    torch.testing.assert_close(read.double(), _exact(inputs, start, 32), rtol=2**-7, atol=2e-2)
    assert not op.serves(q.float(), k.float(), v.float(), 32)
    assert not op.serves(q[:, -1:], k, v, 32)


@compiles
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("out_scale", [None, 0.1])
def test_compiles_for_hopper(shape: tuple[int, ...], out_scale: float | None) -> None:
    inputs, start = _inputs(shape)
    out = torch.empty(shape, dtype=torch.bfloat16 if out_scale is None else torch.int8)
    check_compiles(lambda: op.one_window(*inputs, start, shape[1], out_scale, 0.18, out))


def test_what_fits() -> None:
    assert op.fits((1, 32, 8, 8, 64), 32)
    assert op.fits((32, 32, 8, 8, 64), 32)
    # Too many blocks, too few heads.
    assert not op.fits((12, 32, 8, 8, 64), 32)
    # The first step would be out of the last one's sight.
    assert not op.fits((1, 32, 8, 8, 64), 31)
    # A step of 12 lies in two blocks; 384 rows have no room; 40 end in the middle of a block.
    assert not op.fits((1, 16, 12, 8, 64), 32)
    assert not op.fits((1, 48, 8, 8, 64), 48)
    assert not op.fits((1, 33, 8, 8, 64), 64)
    assert not op.fits((1, 32, 8, 8, 48), 32)
    assert not op.fits((1, 4, 32, 8, 64), 32)
