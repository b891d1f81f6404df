"""Linear layers on 8-bit integers, weights and activations both: W8A8.

Formula, for a row x of activations and a row w of weights (one output's), each with its own scale:

    q(x) = round(x * 127 / max|x|),   s(x) = max|x| / 127
    y = residual + activation(s(x) s(w) sum_k q(x)_k q(w)_k)

Rounding is to nearest, ties to even; the sum is exact in int32. The tensor cores multiply int8 at
twice the rate of bfloat16, and operands are half the bytes. A norm before the layer costs nothing:
with its gain folded into the weight (see norm_linear), it changes the scales alone.

Source: Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339 (scales a row and a column).

Shapes: M rows, K width of a row, N outputs.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import form_for
from kernels.int8_epilogue import Epilogue
from kernels.int8_weight import Int8Weight
from kernels.matmul_tile import (
    Tile,
    gelu_tanh,
    load_columns,
    loadable,
    operand,
    pick_tile,
    programs,
    row_pointers,
    store_tile,
    tile_origin,
)
from kernels.norm_linear import Activation

# From the largest: the fewer loads a product, the fewer programs.
_TILES = (
    Tile(128, 256, 128, warps=8, stages=4, tma=True),
    Tile(128, 128, 128, warps=8, stages=4, tma=True),
    Tile(64, 64, 128, warps=4, stages=4),
    Tile(32, 64, 128, warps=4, stages=4),
    Tile(16, 32, 256, warps=4, stages=4),
)
_ROWS_PER_PROGRAM = 4
_ELEMENTS_PER_THREAD = 64
# A wider sum of products of 127 could leave int32.
MOST_COLUMNS = (2**31 - 1) // 127**2
# 127 / max|x| stays finite above; what is smaller is zero.
_LEAST = 2.0**-100
_STEP = 1.0 / 127.0


def tile_for(rows: int, columns: int, depth: int) -> Tile:
    """The tile for a product of int8; arguments are M, N and K."""
    return pick_tile(_TILES, rows, columns, depth)


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
    largest = torch.where(largest >= _LEAST, largest, 0.0)
    inverse = torch.where(largest > 0, torch.full_like(largest, 127.0) / largest, 0.0)
    return (x * inverse[..., None]).round().to(torch.int8), largest * _STEP


def quantize_rows(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    """The form for the case at hand; arguments as the reference's."""
    if form_for(x_MK) == "triton":
        return quantize_rows_triton(x_MK)
    return quantize_rows_reference(x_MK)


def quantize_rows_triton(
    x_MK: Tensor, *, out: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The Triton kernel; arguments as the reference's, and contiguous q and scale to write to."""
    return _quantize(x_MK, None, None, out)


def quantize_weight(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) int8 and (N,) float32: a weight as `int8_linear` takes it, a scale an output."""
    return quantize_rows_reference(weight_NK.detach())


def rms_norm_quantize_rows_reference(
    x_MK: Tensor, gamma_K: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Plain PyTorch: what the kernel must equal.

    Args:
        x_MK: (..., K) finite values.
        gamma_K: (K,) the norm's gain, or None where it is folded into the weight.
        eps: added to the mean square.

    Returns:
        q (..., K) int8 and scale (...) float32 of the normalised rows.
    """
    x = x_MK.float()
    inverse = torch.rsqrt(x.square().mean(-1) + eps)
    q, scale = quantize_rows_reference(x if gamma_K is None else x * gamma_K.float())
    return q, scale * inverse


def rms_norm_quantize_rows(
    x_MK: Tensor, gamma_K: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """The form for the case at hand; arguments as the reference's."""
    if form_for(x_MK) == "triton":
        return rms_norm_quantize_rows_triton(x_MK, gamma_K, eps)
    return rms_norm_quantize_rows_reference(x_MK, gamma_K, eps)


def rms_norm_quantize_rows_triton(
    x_MK: Tensor,
    gamma_K: Tensor | None,
    eps: float,
    *,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The Triton kernel; arguments as the reference's, and contiguous q and scale to write to."""
    return _quantize(x_MK, gamma_K, eps, out)


def int8_linear_reference(
    q_MK: Tensor,
    scale_M: Tensor,
    wq_NK: Tensor,
    wscale_N: Tensor,
    out_dtype: torch.dtype,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal. Exact, and slow: float64 holds every sum.

    Args:
        q_MK: (..., K) int8 rows.
        scale_M: (...) float32 their scales.
        wq_NK: (N, K) int8 weight.
        wscale_N: (N,) float32 its scales.
        out_dtype: type of the result.
        activation: None, or "gelu" in its tanh approximation.
        residual: (..., N) added last, or None.

    Returns:
        (..., N) of out_dtype.
    """
    total = F.linear(q_MK.double(), wq_NK.double()).float()
    y = total * scale_M[..., None] * wscale_N
    if activation is not None:
        y = F.gelu(y, approximate="tanh")
    return (y if residual is None else y + residual.float()).to(out_dtype)


def int8_linear(
    q_MK: Tensor,
    scale_M: Tensor,
    wq_NK: Tensor,
    wscale_N: Tensor,
    out_dtype: torch.dtype,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = int8_linear_triton if form_for(q_MK) == "triton" else int8_linear_reference
    return form(q_MK, scale_M, wq_NK, wscale_N, out_dtype, activation, residual)


def int8_linear_triton(
    q_MK: Tensor,
    scale_M: Tensor,
    wq_NK: Tensor,
    wscale_N: Tensor,
    out_dtype: torch.dtype,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's.

    Args:
        q_MK: (..., K) int8 rows, contiguous in K as the weight is; K at most MOST_COLUMNS.
        scale_M: (...) float32.
        wq_NK: (N, K) int8.
        wscale_N: (N,) float32.
        out_dtype: type of the result.
        activation: None or "gelu".
        residual: (..., N) or None.
        config: the tile, else from `tile_for`.
        out: (..., N) contiguous, to write to; may be the residual itself.

    Raises:
        ValueError: types, shapes or layouts differ from the above, or a sum could overflow.
    """
    depth, columns = q_MK.shape[-1], wq_NK.shape[0]
    if q_MK.dtype != torch.int8 or wq_NK.dtype != torch.int8:
        raise ValueError(f"operands must be int8, not {q_MK.dtype} and {wq_NK.dtype}")
    if depth > MOST_COLUMNS:
        raise ValueError(f"sums of {depth} products could overflow: {MOST_COLUMNS} at most")
    q = q_MK.reshape(-1, depth)
    if q.stride(-1) != 1 or wq_NK.stride(-1) != 1:
        raise ValueError("rows and weight must be contiguous in K")
    shape = (*q_MK.shape[:-1], columns)
    out = torch.empty(shape, device=q.device, dtype=out_dtype) if out is None else out
    if out.shape != shape or out.dtype != out_dtype or not out.is_contiguous():
        raise ValueError(f"out must be contiguous, {shape} and {out_dtype}")
    if residual is not None and residual.shape != shape:
        raise ValueError(f"residual must be {shape}, not {tuple(residual.shape)}")
    if out.numel():
        tile = loadable(config or tile_for(len(q), columns, depth), q, wq_NK)
        _int8_linear_kernel[(programs(tile, len(q), columns),)](
            operand(q, tile.m, tile),
            operand(wq_NK, tile.n, tile),
            scale_M.contiguous(),
            wscale_N.contiguous(),
            None if residual is None else residual.contiguous(),
            out,
            len(q),
            columns,
            q.stride(0),
            wq_NK.stride(0),
            DIM=depth,
            BLOCK_M=tile.m,
            BLOCK_N=tile.n,
            BLOCK_K=tile.k,
            GROUP=tile.group,
            TMA=tile.tma,
            GELU=activation == "gelu",
            RESIDUAL=residual is not None,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


def _quantize(
    x_MK: Tensor, gamma_K: Tensor | None, eps: float | None, out: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Both quantisers: with eps the rows are normalised first."""
    lead, depth = x_MK.shape[:-1], x_MK.shape[-1]
    q, scale = out or (
        torch.empty(x_MK.shape, device=x_MK.device, dtype=torch.int8),
        torch.empty(lead, device=x_MK.device, dtype=torch.float32),
    )
    if not (q.is_contiguous() and scale.is_contiguous()):
        raise ValueError("q and scale must be contiguous")
    if not depth:
        return q, scale.zero_()
    x = x_MK.reshape(-1, depth)
    if x.stride(-1) != 1:
        raise ValueError("rows must be contiguous in K")
    if len(x):
        block = triton.next_power_of_2(depth)
        # A warp a row, until a row is more than its registers hold well.
        warps = min(max(_ROWS_PER_PROGRAM * block // (32 * _ELEMENTS_PER_THREAD), 4), 16)
        _quantize_rows_kernel[(-(-len(x) // _ROWS_PER_PROGRAM),)](
            x,
            None if gamma_K is None else gamma_K.contiguous(),
            q,
            scale,
            len(x),
            x.stride(0),
            0.0 if eps is None else eps,
            LEAST=_LEAST,
            STEP=_STEP,
            DIM=depth,
            BLOCK_M=_ROWS_PER_PROGRAM,
            BLOCK_K=block,
            NORM=eps is not None,
            GAIN=gamma_K is not None,
            num_warps=warps,
            # Fused, the product and the rounding after it would round once where two are meant.
            enable_fp_fusion=False,
        )
    return q, scale


@triton.jit  # type: ignore[untyped-decorator]
def _quantize_rows_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    gamma_ptr,
    q_ptr,
    scale_ptr,
    rows,
    x_stride,
    eps,
    LEAST: tl.constexpr,
    STEP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    NORM: tl.constexpr,
    GAIN: tl.constexpr,
):
    first_row = tl.program_id(0) * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)
    x = load_columns(row_pointers(x_ptr, first_row, rows, x_stride, BLOCK_M), 0, DIM, BLOCK_K)
    x = x.to(tl.float32)
    column = tl.arange(0, BLOCK_K)
    factor = tl.full((BLOCK_M,), STEP, tl.float32)
    if NORM:
        factor *= 1.0 / tl.sqrt(tl.sum(x * x, 1) / DIM + eps)
    if GAIN:
        x *= tl.load(gamma_ptr + column, column < DIM, 0.0).to(tl.float32)[None, :]
    largest = tl.max(tl.abs(x), 1)
    largest = tl.where(largest >= LEAST, largest, 0.0)
    inverse = tl.where(largest > 0.0, tl.div_rn(127.0, tl.maximum(largest, LEAST)), 0.0)
    # Adding 1.5 * 2^23 leaves no bits for a fraction: rounds to nearest, ties to even.
    rounded = (x * inverse[:, None] + 12582912.0) - 12582912.0
    place = row.to(tl.int64)[:, None] * DIM + column[None, :]
    tl.store(q_ptr + place, rounded.to(tl.int8), (row < rows)[:, None] & (column < DIM)[None, :])
    tl.store(scale_ptr + row, largest * factor, row < rows)


@triton.jit  # type: ignore[untyped-decorator]
def _int8_linear_kernel(  # type: ignore[no-untyped-def]
    q_ref,
    wq_ref,
    scale_ptr,
    wscale_ptr,
    residual_ptr,
    out_ptr,
    rows,
    columns,
    q_stride,
    wq_stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    TMA: tl.constexpr,
    GELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    if not TMA:
        q_rows = row_pointers(q_ref, first_row, rows, q_stride, BLOCK_M)
        wq_rows = row_pointers(wq_ref, first_column, columns, wq_stride, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for k in range(0, DIM, BLOCK_K):
        if TMA:
            q = q_ref.load([first_row, k])
            wq = wq_ref.load([first_column, k])
        else:
            q = load_columns(q_rows, k, DIM, BLOCK_K)
            wq = load_columns(wq_rows, k, DIM, BLOCK_K)
        total = tl.dot(q, wq.T, total, out_dtype=tl.int32)
    row = first_row + tl.arange(0, BLOCK_M)
    column = first_column + tl.arange(0, BLOCK_N)
    scale = tl.load(scale_ptr + row, row < rows, 0.0)
    wscale = tl.load(wscale_ptr + column, column < columns, 0.0)
    y = total.to(tl.float32) * scale[:, None] * wscale[None, :]
    if GELU:
        y = gelu_tanh(y)
    if RESIDUAL:
        residual = row_pointers(residual_ptr, first_row, rows, columns, BLOCK_M) + column[None, :]
        y += tl.load(residual, (column < columns)[None, :], 0.0).to(tl.float32)
    store_tile(out_ptr, y, first_row, first_column, rows, columns)


def int8_matmul_reference(
    q_MK: Tensor,
    scale_M: Tensor | float,
    weight: Int8Weight,
    dtype: torch.dtype,
    epilogue: Epilogue,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        q_MK: (..., K) int8 rows.
        scale_M: (...) float32 their scales, or one of them all.
        weight: (N, K).
        dtype: type of the result, unless the epilogue makes it int8.
        epilogue: what follows the sums.

    Returns:
        (..., N).
    """
    y = epilogue.of(exact_sums(q_MK, weight.q_NK), scale_M, weight.scale_N)
    return y if epilogue.out_scale is not None else y.to(dtype)


def exact_sums(q_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """(..., N) the sums of products, exact: in int32, or where that is not to be had, float64."""
    if q_MK.is_cpu and q_MK.numel() and len(weight_NK) and _int_mm_is_exact():
        total = torch._int_mm(q_MK.reshape(-1, q_MK.shape[-1]), weight_NK.t())
        return total.view(*q_MK.shape[:-1], len(weight_NK))
    return F.linear(q_MK.double(), weight_NK.double())


@functools.cache
def _int_mm_is_exact() -> bool:
    """Whether this CPU adds products of int8 without going through int16, where they saturate."""
    q = torch.full((16, 64), 127, dtype=torch.int8)
    q[:, ::3] = -127
    total = torch._int_mm(q, q.t())
    return torch.equal(total, (q.long() @ q.long().t()).int())
