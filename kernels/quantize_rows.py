"""Rows of activations in 8-bit integers, with a scale a row or one that was calibrated.

Formula, for a row x:

    q(x) = round(127 x / max|x|),   s(x) = max|x| / 127

or, given a scale s, q(x) = round(x / s) clipped to +-127. Rounding is to nearest, ties to even. An
RMS norm before costs no more than its sum: its factor changes s(x) alone.

Source: Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339 (a scale a row).

Shapes: M rows, K width of a row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.dependent_launch import launch_options, wait_for_inputs

# 127 / max|x| stays finite above; what is smaller is zero.
_LEAST = tl.constexpr(2.0**-100)
_STEP = tl.constexpr(1.0 / 127.0)
# Adding 1.5 * 2^23 leaves no bits for a fraction: rounds to nearest, ties to even.
_NO_FRACTION = tl.constexpr(12582912.0)
_ROWS_PER_PROGRAM = 8
_ELEMENTS_PER_THREAD = 64


def quantize_rows_reference(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    """Plain PyTorch: what the kernel must equal, to the bit.

    Args:
        x_MK: (..., K) finite values.

    Returns:
        q (..., K) int8 within +-127 and scale (...) float32, with x close to q * scale. A row
        whose values are all below 2^-100 counts as zero, and has the scale 0.
    """
    x = x_MK.float()
    largest = x.abs().amax(-1) if x.shape[-1] else x.new_zeros(x.shape[:-1])
    largest = torch.where(largest >= _LEAST.value, largest, 0.0)
    inverse = torch.where(largest > 0, torch.full_like(largest, 127.0) / largest, 0.0)
    return (x * inverse[..., None]).round_().to(torch.int8), largest * _STEP.value


def rms_norm_quantize_rows_reference(x_MK: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Plain PyTorch: what the kernel must equal.

    Args:
        x_MK: (..., K) finite values.
        eps: added to the mean square.

    Returns:
        As `quantize_rows_reference`, of the normalised rows.
    """
    q, scale = quantize_rows_reference(x_MK)
    return q, scale * torch.rsqrt(x_MK.float().square().mean(-1) + eps)


def quantize_with_reference(x_MK: Tensor, scale: float) -> Tensor:
    """Plain PyTorch: what the kernel must equal, to the bit.

    Args:
        x_MK: (..., K) finite values.
        scale: positive; values beyond 127 times it are clipped.

    Returns:
        (..., K) int8 within +-127, with x close to q * scale.
    """
    return (x_MK.float() * (1.0 / scale)).clamp_(-127.0, 127.0).round_().to(torch.int8)


def quantize_rows_triton(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    """The Triton kernel; arguments as the reference's, rows contiguous in K."""
    q, scale = _outputs(x_MK)
    _quantize(x_MK, q, scale)
    return q, scale


def rms_norm_quantize_rows_triton(x_MK: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The Triton kernel; arguments as the reference's, rows contiguous in K."""
    q, scale = _outputs(x_MK)
    _quantize(x_MK, q, scale, eps=eps)
    return q, scale


def quantize_with_triton(x_MK: Tensor, scale: float) -> Tensor:
    """The Triton kernel; arguments as the reference's, rows contiguous in K."""
    q = torch.empty(x_MK.shape, device=x_MK.device, dtype=torch.int8)
    _quantize(x_MK, q, None, inverse=1.0 / scale)
    return q


def _outputs(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty(x_MK.shape, device=x_MK.device, dtype=torch.int8),
        torch.empty(x_MK.shape[:-1], device=x_MK.device, dtype=torch.float32),
    )


def _quantize(
    x_MK: Tensor,
    q_MK: Tensor,
    scale_M: Tensor | None,
    *,
    eps: float | None = None,
    inverse: float = 0.0,
) -> None:
    """All quantisers: without scales the given one's inverse is used; with eps, the norm."""
    depth = x_MK.shape[-1]
    x = x_MK.reshape(-1, depth) if depth else x_MK.flatten(0, -2)
    if x.stride(-1) != 1:
        raise ValueError("rows must be contiguous in K")
    if not x.numel():
        if scale_M is not None:
            scale_M.zero_()
        return
    block = triton.next_power_of_2(depth)
    # A warp a row, until a row is more than its registers hold well.
    warps = min(max(_ROWS_PER_PROGRAM * block // (32 * _ELEMENTS_PER_THREAD), 4), 16)
    _quantize_rows_kernel[(-(-len(x) // _ROWS_PER_PROGRAM),)](
        x,
        q_MK,
        scale_M,
        len(x),
        x.stride(0),
        0.0 if eps is None else eps,
        inverse,
        DIM=depth,
        BLOCK_M=_ROWS_PER_PROGRAM,
        BLOCK_K=block,
        # A warp stores so many at once, 16 a thread.
        PARTS=max(block // 512, 1),
        NORM=eps is not None,
        GIVEN=scale_M is None,
        num_warps=warps,
        # Fused, the product and the rounding after it would round once where two are meant.
        enable_fp_fusion=False,
        **launch_options(x_MK),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _quantize_rows_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    q_ptr,
    scale_ptr,
    rows,
    x_stride,
    eps,
    inverse,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    NORM: tl.constexpr,
    GIVEN: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    first_row = tl.program_id(0) * BLOCK_M
    x = load_rows(x_ptr, first_row, rows, x_stride, DIM, BLOCK_M, BLOCK_K, PARTS)
    row = first_row + tl.arange(0, BLOCK_M)
    if GIVEN:
        q = clipped_int8(x.to(tl.float32) * inverse)
    else:
        q, scale = quantize_tile(x.to(tl.float32), eps, DIM, NORM)
        tl.store(scale_ptr + row, scale, row < rows)
    column = _columns(BLOCK_K, PARTS)
    place = row.to(tl.int64)[:, None, None] * DIM + column
    tl.store(q_ptr + place, q, (row < rows)[:, None, None] & (column < DIM))


@triton.jit  # type: ignore[untyped-decorator]
def load_rows(  # type: ignore[no-untyped-def]
    x_ptr,
    first_row,
    rows,
    stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
):
    """(BLOCK_M, PARTS, BLOCK_K / PARTS) of whole rows, zero past the last and past their depth.

    The compiler gives the columns of a part to a warp's threads, then rows to its warps, and parts
    to a thread: where a warp loads, or stores, a part at once, warps hold whole rows.
    """
    row = (first_row + tl.arange(0, BLOCK_M))[:, None, None]
    column = _columns(BLOCK_K, PARTS)
    return tl.load(x_ptr + row.to(tl.int64) * stride + column, (row < rows) & (column < DIM), 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _columns(BLOCK_K: tl.constexpr, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """(1, PARTS, BLOCK_K / PARTS) the places of a row's elements in its parts."""
    WIDTH: tl.constexpr = BLOCK_K // PARTS
    part = tl.arange(0, PARTS)[None, :, None]
    return part * WIDTH + tl.arange(0, WIDTH)[None, None, :]


@triton.jit  # type: ignore[untyped-decorator]
def quantize_tile(x, eps, DIM: tl.constexpr, NORM: tl.constexpr):  # type: ignore[no-untyped-def]
    """The int8 of whole rows, and their scales (M,).

    Args:
        x: (M, PARTS, K / PARTS) float32, zero past the rows' depth.
        eps: added to the mean square.
        DIM: depth of the rows.
        NORM: whether the scale is that of the rows' RMS norm.
    """
    # First over what a thread holds itself.
    largest = tl.max(tl.max(tl.abs(x), 1), 1)
    largest = tl.where(largest >= _LEAST, largest, 0.0)
    inverse = tl.where(largest > 0.0, tl.div_rn(127.0, tl.maximum(largest, _LEAST)), 0.0)
    scale = largest * _STEP
    if NORM:
        scale *= 1.0 / tl.sqrt(tl.sum(tl.sum(x * x, 1), 1) / DIM + eps)
    return rounded_int8(x * inverse[:, None, None]), scale


@triton.jit
def clipped_int8(x):  # type: ignore[no-untyped-def]
    """The nearest int8 within +-127."""
    return rounded_int8(tl.minimum(tl.maximum(x, -127.0), 127.0))


@triton.jit
def rounded_int8(x):  # type: ignore[no-untyped-def]
    """The nearest int8 of what is within +-127, ties to even."""
    # The sum's last byte is the integer: a conversion would take eight times as long.
    return (x + _NO_FRACTION).to(tl.int32, bitcast=True).to(tl.int8)
