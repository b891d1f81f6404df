"""What follows the integer sums of a product of 8-bit operands.

Formula, for the sum t of a row with scale s(x) and an output with scale s(w):

    y = activation(s(x) s(w) t) + residual

or, instead of an activation, the pairs of the leading columns turned as in kernels.rotary. With a
scale s(y) for the result, round(y / s(y)) clipped to +-127 is written: the next product's operand,
at half the bytes.

Shapes: M rows, N outputs, R rows of the residual.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.linear_add import load_residual
from kernels.matmul_tile import Tile, fast_tanh, gelu_tanh
from kernels.norm_linear import Activation
from kernels.quantize_rows import clipped_int8, quantize_with_reference
from kernels.turn import Turn, check_turn, load_phases, turn_options, turn_pairs, turned_reference


@dataclass(frozen=True)
class Epilogue:
    """The operations that follow, of which a turn and an activation exclude each other.

    Attributes:
        dtype: type of the result, where it has no scale.
        activation: None, or "gelu" in its tanh approximation.
        turn: how the leading columns turn, or None.
        residual: (..., N) what is added, or None; of the rows' leading dimensions it may lack the
            first ones, and is then repeated over them.
        out_scale: the scale of an int8 result, or None.
    """

    dtype: torch.dtype
    activation: Activation | None = None
    turn: Turn | None = None
    residual: Tensor | None = None
    out_scale: float | None = None

    def of(self, total_MN: Tensor, scale_M: Tensor | float, scale_N: Tensor) -> Tensor:
        """Plain PyTorch: what the kernels must equal.

        Args:
            total_MN: (..., N) exact sums, of any type.
            scale_M: (...) float32 scales of the rows, or one of them all.
            scale_N: (N,) float32 scales of the outputs.

        Returns:
            (..., N).
        """
        rows = scale_M if isinstance(scale_M, float) else scale_M[..., None]
        y = total_MN.float().mul_(rows).mul_(scale_N)
        if self.activation is not None:
            y = F.gelu(y, approximate="tanh")
        if self.turn is not None:
            y = turned_reference(y, self.turn)
        if self.residual is not None:
            y = y.add_(self.residual)
        if self.out_scale is not None:
            return quantize_with_reference(y, self.out_scale)
        return y.to(self.dtype)

    def output(self, x_MK: Tensor, columns: int, out: Tensor | None) -> Tensor:
        """An output (..., N) for the kernels to write, or the given one.

        Args:
            x_MK: (..., K) rows of the product.
            columns: N.
            out: contiguous, or None.

        Raises:
            ValueError: that output, or the turn, residual or scale, is not as said above.
        """
        shape = (*x_MK.shape[:-1], columns)
        if self.turn is not None:
            check_turn(self.turn, columns, self.activation)
        if self.residual is not None:
            dims = self.residual.dim()
            if dims < 1 or self.residual.shape != shape[len(shape) - dims :]:
                raise ValueError(f"the residual must be {shape}, or the last dimensions of that")
        if self.out_scale is not None and not self.out_scale > 0:
            raise ValueError(f"the result's scale must be positive, not {self.out_scale}")
        dtype = self.dtype if self.out_scale is None else torch.int8
        out = torch.empty(shape, device=x_MK.device, dtype=dtype) if out is None else out
        if out.shape != shape or not out.is_contiguous() or out.dtype != dtype:
            raise ValueError(f"out must be contiguous, {shape} and {dtype}")
        return out

    def options(self, out_MN: Tensor, tile: Tile) -> dict[str, Any]:
        """The arguments of a kernel that loads what `finish_tile` takes.

        Args:
            out_MN: what `output` has given, in two dimensions.
            tile: how it is cut up.
        """
        rows, columns = out_MN.shape
        period = rows if self.residual is None else self.residual.numel() // columns
        return {
            "residual_ptr": None if self.residual is None else self.residual.contiguous(),
            "period": period,
            "REPEATED": period < rows,
            "ADD": self.residual is not None,
            "out_inverse": 0.0 if self.out_scale is None else 1.0 / self.out_scale,
            "INT8": self.out_scale is not None,
            "GELU": self.activation == "gelu",
            # A GPU's approximate functions are finer than either type.
            "FAST": out_MN.is_cuda and out_MN.dtype in (torch.bfloat16, torch.int8),
            **turn_options(self.turn, tile),
        }


@triton.jit  # type: ignore[untyped-decorator]
def load_scales(  # type: ignore[no-untyped-def]
    scale_ptr, given, first, count, BLOCK: tl.constexpr
):
    """(BLOCK,) scales of the rows or outputs from `first` on; without a pointer the given one."""
    if scale_ptr is None:
        scale = tl.full((BLOCK,), given, tl.float32)
    else:
        place = first + tl.arange(0, BLOCK)
        scale = tl.load(scale_ptr + place, place < count, 0.0)
    return scale


@triton.jit  # type: ignore[untyped-decorator]
def load_operands(  # type: ignore[no-untyped-def]
    first_row,
    first_column,
    rows,
    columns,
    residual_ptr,
    period,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    ADD: tl.constexpr,
    REPEATED: tl.constexpr,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A tile of the residual, and cos and sin of its columns; zeros for what there is not."""
    residual = tl.zeros((1, 1), tl.float32)
    cos = tl.zeros((1, 1), tl.float32)
    sin = cos
    if ADD:
        residual = load_residual(
            residual_ptr, first_row, first_column, rows, columns, period, BLOCK_M, BLOCK_N, REPEATED
        )
    if HEAD:
        cos, sin = load_phases(
            cos_ptr,
            sin_ptr,
            n_phases,
            turned_columns,
            first_row,
            first_column,
            HEAD,
            PHASE_ROWS,
            SHARE,
            PERIOD,
            BLOCK_M,
        )
    return residual, cos, sin


@triton.jit  # type: ignore[untyped-decorator]
def finish_tile(  # type: ignore[no-untyped-def]
    total,
    scale_M,
    scale_N,
    residual,
    cos,
    sin,
    out_inverse,
    ADD: tl.constexpr,
    HEAD: tl.constexpr,
    GELU: tl.constexpr,
    FAST: tl.constexpr,
    INT8: tl.constexpr,
):
    """A tile of the result, from its sums and what the functions above have loaded."""
    if GELU and INT8:
        # In steps of the result from the start, as the arithmetic bounds a product's time.
        half = total.to(tl.float32) * scale_M[:, None] * (0.5 * out_inverse * scale_N)[None, :]
        y = _gelu_in_steps(half, 1.0 / out_inverse, FAST)
    else:
        y = total.to(tl.float32) * scale_M[:, None] * scale_N[None, :]
        if GELU:
            y = gelu_tanh(y, FAST)
        if HEAD:
            y = turn_pairs(y, cos, sin)
        if ADD:
            y += residual.to(tl.float32)
        if INT8:
            y *= out_inverse
    if INT8:
        y = _clipped_int8_fast(y) if FAST else clipped_int8(y)
    return y


@triton.jit  # type: ignore[untyped-decorator]
def _gelu_in_steps(half, step, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """gelu_tanh(x) / step, of half = x / (2 step)."""
    # Multiplied and added at once, also by kernels that may not do so to what they round.
    slope = tl.fma(0.2854192650890421 * step * step * step * half, half, 1.5957691216057308 * step)
    u = half * slope
    return tl.fma(half, fast_tanh(u), half) if FAST else 2.0 * half * tl.sigmoid(2.0 * u)


@triton.jit
def _clipped_int8_fast(x):  # type: ignore[no-untyped-def]
    """clipped_int8 by a GPU's float16, two elements an instruction.

    That has four bits more than the result: what is 2^-5 from the middle of a step may go either
    way. As in rounded_int8 the integer is the last byte of a sum, here with 1.5 * 2^10.
    """
    total = tl.inline_asm_elementwise(
        """
        {
            .reg .b32 x, most, least, no_fraction;
            mov.b32 most, 0x57f057f0;         // 127
            mov.b32 least, 0xd7f0d7f0;        // -127
            mov.b32 no_fraction, 0x66006600;  // 1536
            cvt.rn.f16x2.f32 x, $2, $1;
            min.f16x2 x, x, most;
            max.f16x2 x, x, least;
            add.rn.f16x2 $0, x, no_fraction;
        }
        """,
        "=r,f,f",
        [x],
        dtype=tl.float16,
        is_pure=True,
        pack=2,
    )
    return total.to(tl.int16, bitcast=True).to(tl.int8)
