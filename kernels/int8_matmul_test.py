"""8-bit linear layers against exact integers, in Triton's interpreter where there is no GPU."""

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import int8_matmul as op
from kernels.dispatch import forced
from kernels.matmul_tile import Tile
from kernels.norm_linear import Activation

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6

SMALL = Tile(16, 32, 32, warps=4, stages=3)
LARGE = Tile(64, 64, 64, warps=4, stages=3, group=2)
TMA = Tile(64, 32, 32, warps=4, stages=3, group=2, tma=True)


def _rows(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    size = torch.logspace(-3, 3, max(shape[-2], 1))[: shape[-2], None]
    return (torch.randn(shape) * size).to(DEVICE, dtype)


def _poisoned(x: Tensor) -> tuple[Tensor, Tensor]:
    q = torch.full(x.shape, -128, device=DEVICE, dtype=torch.int8)
    return q, torch.full(x.shape[:-1], torch.nan, device=DEVICE)


def _integers(rows: tuple[int, ...], depth: int, columns: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    q = torch.randint(-127, 128, (*rows, depth), device=DEVICE, dtype=torch.int8)
    wq = torch.randint(-127, 128, (columns, depth), device=DEVICE, dtype=torch.int8)
    return q, wq


def _exact_total(q: Tensor, wq: Tensor) -> Tensor:
    return (q.cpu().long() @ wq.cpu().long().t()).to(DEVICE)


@pytest.mark.parametrize("shape", [(1, 1), (5, 32), (3, 7, 24), (9, 100), (2, 3000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantising_equals_the_reference_to_the_bit(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = _rows(shape, dtype)
    q, scale = op.quantize_rows_triton(x, out=_poisoned(x))
    expected_q, expected_scale = op.quantize_rows_reference(x)
    assert torch.equal(q, expected_q)
    assert torch.equal(scale, expected_scale)


def test_quantised_rows_are_within_half_a_step() -> None:
    x = _rows((20, 64))
    q, scale = op.quantize_rows_triton(x)
    step = scale.double()[:, None]
    error = (q.double() * step - x.double()).abs()
    # Plus what float32 rounds off the scale and the quotient.
    assert (error <= step * (0.5 + 127 * 2**-22)).all()
    assert (q.abs().amax(-1) == 127).all()


def test_ties_go_to_even() -> None:
    # With the largest value 127 a value is its own quotient.
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]], device=DEVICE)
    expected = [127, 0, 2, 2, 0, -2, -2, 126]
    assert op.quantize_rows_triton(x)[0].tolist() == [expected]
    assert op.quantize_rows_reference(x)[0].tolist() == [expected]


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, -1e-31])
@torch.no_grad()
def test_rows_of_next_to_nothing_are_zero(value: float) -> None:
    x = _rows((6, 32))
    x[2] = value
    for form in (op.quantize_rows_triton, op.quantize_rows_reference):
        q, scale = form(x)
        assert not q[2].any()
        assert scale[2] == 0
        assert q[[1, 3]].abs().amax(-1).tolist() == [127, 127]
    q, scale = op.rms_norm_quantize_rows_triton(x, None, EPS)
    y = op.int8_linear_triton(q, scale, q[:4], scale[:4], torch.float32, config=SMALL)
    assert not y[2].any()
    assert y.isfinite().all()


def test_weights_are_scaled_an_output() -> None:
    weight = _rows((4, 16))
    q, scale = op.quantize_weight(weight)
    assert scale.shape == (4,)
    torch.testing.assert_close(scale, weight.abs().amax(1) / 127)
    assert (q.abs().amax(1) == 127).all()


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("shape", [(5, 32), (3, 7, 24), (9, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_normalised_rows_are_within_half_a_step(
    gain: bool, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = _rows(shape, dtype)
    gamma = torch.randn(shape[-1], device=DEVICE).to(dtype) if gain else None
    wide = None if gamma is None else gamma.double()
    exact = F.rms_norm(x.double(), x.shape[-1:], wide, EPS)
    fused = op.rms_norm_quantize_rows_triton(x, gamma, EPS, out=_poisoned(x))
    for q, scale in (fused, op.rms_norm_quantize_rows_reference(x, gamma, EPS)):
        step = scale.double()[..., None]
        assert ((q.double() * step - exact).abs() <= step * (0.5 + 127 * 2**-20)).all()
        assert (q.abs().amax(-1) == 127).all()


@pytest.mark.parametrize("rows", [(1,), (70,), (3, 5)])
@pytest.mark.parametrize(("depth", "columns"), [(32, 1), (96, 80), (40, 33), (21, 17)])
@pytest.mark.parametrize("config", [None, SMALL, LARGE, TMA])
def test_products_are_exact(
    rows: tuple[int, ...], depth: int, columns: int, config: Tile | None
) -> None:
    q, wq = _integers(rows, depth, columns)
    out = torch.full((*rows, columns), torch.nan, device=DEVICE)
    # Scales that are powers of two leave every bit of the sums as it is.
    scale = torch.full(rows, 0.5, device=DEVICE)
    wscale = torch.full((columns,), 0.25, device=DEVICE)
    op.int8_linear_triton(q, scale, wq, wscale, out.dtype, config=config, out=out)
    assert torch.equal(out.double() * 8, _exact_total(q, wq).double())


def test_the_largest_sums_do_not_saturate() -> None:
    # Float32 holds integers to 2^24 only; this sum is a multiple of a high power of two.
    depth = 2**13
    q = torch.full((2, depth), -127, device=DEVICE, dtype=torch.int8)
    ones = torch.ones(2, device=DEVICE)
    out = op.int8_linear_triton(q, ones, q, ones, torch.float32)
    assert (out.double() == 127**2 * depth).all()


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [None, TMA])
def test_scales_activation_and_residual(
    activation: Activation | None, add: bool, dtype: torch.dtype, config: Tile | None
) -> None:
    q, wq = _integers((37,), 64, 48)
    scale = torch.rand(37, device=DEVICE) * 1e-3
    wscale = torch.rand(48, device=DEVICE) * 1e-1
    residual = torch.randn(37, 48, device=DEVICE).to(dtype) if add else None
    out = torch.full((37, 48), torch.nan, device=DEVICE, dtype=dtype)
    op.int8_linear_triton(q, scale, wq, wscale, dtype, activation, residual, config=config, out=out)
    exact = _exact_total(q, wq).double() * scale.double()[:, None] * wscale.double()
    if activation:
        exact = F.gelu(exact, approximate="tanh")
    if residual is not None:
        exact = exact + residual.double()
    # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
    rtol = 4e-6 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(out.double(), exact, rtol=rtol, atol=4e-6)
    plain = op.int8_linear_reference(q, scale, wq, wscale, dtype, activation, residual)
    torch.testing.assert_close(plain.double(), exact, rtol=rtol, atol=4e-6)


@torch.no_grad()
def test_a_layer_stays_close_to_the_unquantised_one() -> None:
    x, weight = _rows((24, 128)), torch.randn(32, 128, device=DEVICE)
    q, scale = op.rms_norm_quantize_rows(x, None, EPS)
    y = op.int8_linear(q, scale, *op.quantize_weight(weight), torch.float32)
    exact = F.linear(F.rms_norm(x, (128,), None, EPS), weight)
    assert (y - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize(("rows", "columns"), [((0,), 8), ((4, 0), 8), ((4,), 0)])
def test_nothing_gives_nothing(rows: tuple[int, ...], columns: int) -> None:
    q, wq = _integers(rows, 32, columns)
    scale, wscale = torch.ones(rows, device=DEVICE), torch.ones(columns, device=DEVICE)
    out = op.int8_linear_triton(q, scale, wq, wscale, torch.bfloat16)
    assert out.shape == (*rows, columns)
    x = torch.zeros(*rows, 32, device=DEVICE)
    for values, scales in (op.quantize_rows_triton(x), op.quantize_rows_reference(x)):
        assert (values.shape, scales.shape) == (x.shape, x.shape[:-1])


def test_what_does_not_fit_is_an_error() -> None:
    q, wq = _integers((4,), 32, 8)
    scale, wscale = torch.ones(4, device=DEVICE), torch.ones(8, device=DEVICE)
    with pytest.raises(ValueError, match="int8"):
        op.int8_linear_triton(q.short(), scale, wq, wscale, torch.float32)
    with pytest.raises(ValueError, match="residual"):
        op.int8_linear_triton(q, scale, wq, wscale, torch.float32, residual=scale)
    deep = q[:, :1].expand(4, op.MOST_COLUMNS + 1)
    with pytest.raises(ValueError, match="overflow"):
        op.int8_linear_triton(deep, scale, wq, wscale, torch.float32)


def test_the_widest_sum_fits() -> None:
    assert op.MOST_COLUMNS * 127**2 < 2**31 <= (op.MOST_COLUMNS + 1) * 127**2


@torch.no_grad()
def test_the_form_is_the_dispatchers() -> None:
    x = _rows((6, 32))
    q, wq = _integers((6,), 32, 16)
    scale, wscale = torch.rand(6, device=DEVICE), torch.rand(16, device=DEVICE)
    with forced("triton"):
        fused = op.int8_linear(q, scale, wq, wscale, torch.float32, "gelu")
        normed = op.rms_norm_quantize_rows(x, None, EPS)
        rows = op.quantize_rows(x)
    assert torch.equal(fused, op.int8_linear_triton(q, scale, wq, wscale, torch.float32, "gelu"))
    # Without a gain the norm changes the scales alone.
    assert torch.equal(normed[0], rows[0])
    with forced("torch"):
        plain = op.int8_linear(q, scale, wq, wscale, torch.float32, "gelu")
    expected = op.int8_linear_reference(q, scale, wq, wscale, torch.float32, "gelu")
    assert torch.equal(plain, expected)
