"""RMS norm, linear layer and activation in one operator: FlashNorm.

Formula, for rows x and a weight W that the norm's gain has been folded into:

    y = activation((x W^T) * r),   r = 1 / sqrt(mean(x^2) + eps)

A row's norm is one number, so it commutes with the product and is applied to the finished
accumulator. The plain form writes the normalised rows to memory, reads them back, and rounds them
once more on the way.

Few rows: one kernel, which sums the squares of the very tiles that the product loads. Many rows: a
first kernel writes r, one number a row, and the product's loop is left to the tensor cores alone.
It must be: Hopper's read their operands from shared memory in the background, and where a tile has
a second reader, Triton 3.6 gives its buffers one too few and loads over one that is being read
(triton-lang/triton#6691). Tiles of fewer than 64 rows use the older, synchronous instructions.

Source: Graef et al. 2024, "FlashNorm", arXiv:2407.09577.

Shapes: M rows, D width of a row, N outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.dispatch import form_for

Activation = Literal["gelu"]


@dataclass(frozen=True)
class Tile:
    """How a matrix product is cut up.

    Attributes:
        m: rows of the output that a program makes.
        n: columns of the output that a program makes.
        k: depth of one step of the product.
        warps: warps of a program.
        stages: steps whose loads are in flight or in use at once.
        group: rows of programs that run side by side, to share columns in the L2 cache.
        tma: load by the tensor memory accelerator: for large tiles.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int
    group: int = 8
    tma: bool = False


# From the largest: the fewer loads a product, the fewer programs.
_TILES = (
    Tile(128, 256, 64, warps=8, stages=4, tma=True),
    Tile(128, 128, 64, warps=8, stages=4, tma=True),
    Tile(32, 64, 128, warps=4, stages=4),
    Tile(16, 32, 128, warps=4, stages=5),
)
# Exact float32 products have no tensor cores to feed.
TILE_FLOAT32 = Tile(32, 32, 32, warps=4, stages=2)
# Three quarters of the multiprocessors of an H100 or H200.
_ENOUGH_PROGRAMS = 99
# From so many rows on, a tile is multiplied by Hopper's asynchronous instructions.
_ASYNCHRONOUS_ROWS = 64
_ROWS_PER_PROGRAM = 4


def fold(weight_ND: Tensor, gamma_D: Tensor) -> Tensor:
    """(N, D) the weight that takes the norm's gain over, of the weight's type."""
    return (weight_ND.float() * gamma_D.float()).to(weight_ND.dtype)


def tile_for(rows: int, columns: int, depth: int) -> Tile:
    """The tile for a product of bfloat16.

    Args:
        rows: M of the product.
        columns: N of the product.
        depth: D of the product.
    """
    return pick_tile(_TILES, rows, columns, depth)


def pick_tile(tiles: Sequence[Tile], rows: int, columns: int, depth: int) -> Tile:
    """The first of the tiles that keeps the GPU busy, else the last."""
    busy = (tile for tile in tiles if programs(tile, rows, columns) >= _ENOUGH_PROGRAMS)
    tile = next(busy, tiles[-1])
    # Stages beyond the last step would only take shared memory.
    return replace(tile, stages=min(tile.stages, -(-depth // tile.k) + 1))


def programs(tile: Tile, rows: int, columns: int) -> int:
    """Tiles in a product's output."""
    return -(-rows // tile.m) * -(-columns // tile.n)


def loadable(tile: Tile, *matrices: Tensor) -> Tile:
    """The tile, without the TMA where that cannot load: it wants rows at multiples of 16 bytes."""
    aligned = all(
        m.data_ptr() % 16 == 0 and m.stride(0) * m.element_size() % 16 == 0 for m in matrices
    )
    return replace(tile, tma=tile.tma and aligned)


def operand(matrix: Tensor, rows: int, tile: Tile) -> Any:
    """A matrix as a kernel takes it: itself, or a descriptor that loads (rows, tile.k) at once."""
    return TensorDescriptor.from_tensor(matrix, [rows, tile.k]) if tile.tma else matrix


def product_type(matrix: Tensor) -> tl.dtype:
    """The type in which a matrix is multiplied: its own, but on a CPU float32.

    Triton's interpreter, which runs there, multiplies bfloat16 as if it were integers.
    """
    return tl.bfloat16 if matrix.is_cuda and matrix.dtype == torch.bfloat16 else tl.float32


def norm_linear_reference(
    x_MD: Tensor,
    weight_ND: Tensor,
    gamma_D: Tensor | None,
    eps: float,
    activation: Activation | None = None,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        x_MD: (..., D) rows.
        weight_ND: (N, D) the layer's weight.
        gamma_D: (D,) the norm's gain, or None once `fold` has moved it into the weight.
        eps: added to the mean square.
        activation: None, or "gelu" in its tanh approximation.

    Returns:
        (..., N), of x's type.
    """
    y = F.linear(F.rms_norm(x_MD, x_MD.shape[-1:], gamma_D, eps), weight_ND)
    return y if activation is None else F.gelu(y, approximate="tanh")


def norm_linear(
    x_MD: Tensor,
    weight_ND: Tensor,
    gamma_D: Tensor | None,
    eps: float,
    activation: Activation | None = None,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    if form_for(x_MD, wins=_wins(x_MD, activation) and gamma_D is None) == "triton":
        return norm_linear_triton(x_MD, weight_ND, gamma_D, eps, activation)
    return norm_linear_reference(x_MD, weight_ND, gamma_D, eps, activation)


def norm_linear_triton(
    x_MD: Tensor,
    weight_ND: Tensor,
    gamma_D: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    *,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        x_MD: (..., D) rows.
        weight_ND: (N, D), of x's type, contiguous in D as x is.
        gamma_D: None.
        eps: added to the mean square.
        activation: None or "gelu".
        config: the tile, else from `tile_for`.
        out: (..., N) contiguous, to write to.

    Raises:
        ValueError: the gain is not folded, or types or layouts differ from the above.
    """
    if gamma_D is not None:
        raise ValueError("fold the gain into the weight first")
    if x_MD.dtype != weight_ND.dtype:
        raise ValueError(f"rows are {x_MD.dtype}, the weight {weight_ND.dtype}")
    depth, columns = x_MD.shape[-1], weight_ND.shape[0]
    x = x_MD.reshape(-1, depth)
    if x.stride(-1) != 1 or weight_ND.stride(-1) != 1:
        raise ValueError("rows and weight must be contiguous in D")
    shape = (*x_MD.shape[:-1], columns)
    out = torch.empty(shape, device=x.device, dtype=x.dtype) if out is None else out
    if out.shape != shape or not out.is_contiguous():
        raise ValueError(f"out must be contiguous and {shape}")
    if out.numel():
        tile = config or _tile(x, columns)
        _launch(x, weight_ND, eps, activation, loadable(tile, x, weight_ND), out)
    return out


def _wins(x_MD: Tensor, activation: Activation | None) -> bool:
    """Whether the kernel is faster than a norm and cuBLAS: docs/measured/kernel_speed.md."""
    # Other types have no tensor cores here, and unaligned rows are loaded element by element.
    if x_MD.dtype != torch.bfloat16 or x_MD.shape[-1] % 8:
        return False
    rows = x_MD.numel() // x_MD.shape[-1]
    if activation is None:
        return rows >= 8192
    return rows <= 16 or rows >= 4096


def _tile(x_MD: Tensor, columns: int) -> Tile:
    if x_MD.dtype == torch.float32:
        return TILE_FLOAT32
    return tile_for(len(x_MD), columns, x_MD.shape[1])


def _launch(
    x_MD: Tensor,
    weight_ND: Tensor,
    eps: float,
    activation: Activation | None,
    tile: Tile,
    out: Tensor,
) -> None:
    (rows, depth), columns = x_MD.shape, len(weight_ND)
    scale_M = None
    if tile.m >= _ASYNCHRONOUS_ROWS:
        scale_M = torch.empty(rows, device=x_MD.device, dtype=torch.float32)
        _row_scale_kernel[(-(-rows // _ROWS_PER_PROGRAM),)](
            x_MD,
            scale_M,
            rows,
            x_MD.stride(0),
            eps,
            DIM=depth,
            BLOCK_M=_ROWS_PER_PROGRAM,
            BLOCK_D=triton.next_power_of_2(depth),
        )
    _norm_linear_kernel[(programs(tile, rows, columns),)](
        operand(x_MD, tile.m, tile),
        operand(weight_ND, tile.n, tile),
        scale_M,
        out,
        rows,
        columns,
        x_MD.stride(0),
        weight_ND.stride(0),
        eps,
        DIM=depth,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=tile.k,
        GROUP=tile.group,
        TMA=tile.tma,
        DOT=product_type(x_MD),
        SCALED=scale_M is not None,
        GELU=activation == "gelu",
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@triton.jit  # type: ignore[untyped-decorator]
def tile_origin(  # type: ignore[no-untyped-def]
    rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr
):
    """First row and column of this program's tile; GROUP rows of tiles go column by column."""
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_n = tl.cdiv(columns, BLOCK_N)
    program = tl.program_id(0)
    first = program // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    place = program % (GROUP * tiles_n)
    return (first + place % height) * BLOCK_M, place // height * BLOCK_N


@triton.jit  # type: ignore[untyped-decorator]
def row_pointers(base, first, rows, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """(BLOCK, 1) where the rows from `first` on begin.

    Past the last row comes the last row again, so that loads need no mask; it is never stored.
    """
    row = tl.minimum(first + tl.arange(0, BLOCK), rows - 1)
    return base + row.to(tl.int64)[:, None] * stride


@triton.jit  # type: ignore[untyped-decorator]
def load_columns(  # type: ignore[no-untyped-def]
    row_pointers_M1, k, DIM: tl.constexpr, BLOCK_K: tl.constexpr
):
    """(M, BLOCK_K) of rows of DIM columns from column k on, zero past the last."""
    column = k + tl.arange(0, BLOCK_K)
    if DIM % BLOCK_K == 0:
        tile = tl.load(row_pointers_M1 + column[None, :])
    else:
        tile = tl.load(row_pointers_M1 + column[None, :], mask=column[None, :] < DIM, other=0.0)
    return tile


@triton.jit
def gelu_tanh(x):  # type: ignore[no-untyped-def]
    """GELU x / 2 (1 + tanh u) as x sigmoid(2 u): one exponential, and no overflow."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def store_tile(  # type: ignore[no-untyped-def]
    out_ptr, y, first_row, first_column, rows, columns
):
    """Writes the part of a tile that is inside a contiguous (rows, columns) matrix."""
    row = first_row + tl.arange(0, y.shape[0])
    column = first_column + tl.arange(0, y.shape[1])
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _row_scale_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    scale_ptr,
    rows,
    x_stride,
    eps,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    first_row = tl.program_id(0) * BLOCK_M
    x = load_columns(row_pointers(x_ptr, first_row, rows, x_stride, BLOCK_M), 0, DIM, BLOCK_D)
    wide = x.to(tl.float32)
    row = first_row + tl.arange(0, BLOCK_M)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 1) / DIM + eps)
    tl.store(scale_ptr + row, scale, row < rows)


@triton.jit  # type: ignore[untyped-decorator]
def _norm_linear_kernel(  # type: ignore[no-untyped-def]
    x_ref,
    weight_ref,
    scale_ptr,
    out_ptr,
    rows,
    columns,
    x_stride,
    weight_stride,
    eps,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    TMA: tl.constexpr,
    DOT: tl.constexpr,
    SCALED: tl.constexpr,
    GELU: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    if not TMA:
        x_rows = row_pointers(x_ref, first_row, rows, x_stride, BLOCK_M)
        weight_rows = row_pointers(weight_ref, first_column, columns, weight_stride, BLOCK_N)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if not SCALED:
        # Summed over the row once, at the end: until then no two threads need to talk.
        squares = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for k in range(0, DIM, BLOCK_K):
        if TMA:
            x = x_ref.load([first_row, k])
            weight = weight_ref.load([first_column, k])
        else:
            x = load_columns(x_rows, k, DIM, BLOCK_K)
            weight = load_columns(weight_rows, k, DIM, BLOCK_K)
        product = tl.dot(x.to(DOT), weight.to(DOT).T, product, input_precision="ieee")
        if not SCALED:
            wide = x.to(tl.float32)
            squares += wide * wide
    if SCALED:
        row = first_row + tl.arange(0, BLOCK_M)
        scale = tl.load(scale_ptr + row, row < rows, 0.0)
    else:
        scale = 1.0 / tl.sqrt(tl.sum(squares, 1) / DIM + eps)
    y = product * scale[:, None]
    if GELU:
        y = gelu_tanh(y)
    store_tile(out_ptr, y, first_row, first_column, rows, columns)
