"""Parts of a matrix product that the kernels share: how it is cut into tiles, and how tiles move.

Shapes: M rows, N columns of the output, K depth of the product.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


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
        tma_store: write by it, too.
        resident: programs that share all tiles, the next tile's loads in flight while the last one
            is written; 0 for a program a tile.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int
    group: int = 8
    tma: bool = False
    tma_store: bool = False
    resident: int = 0


TileT = TypeVar("TileT", bound=Tile)

# Exact float32 products have no tensor cores to feed.
TILE_FLOAT32 = Tile(32, 32, 32, warps=4, stages=2)
# The tensor cores' least rows of a left operand; of the right one, half of that.
LEAST_ROWS = 16
# Multiprocessors of an H100 or H200, and three quarters of them.
PROCESSORS = 132
ENOUGH_PROGRAMS = 99


def with_stages_for(tile: TileT, depth: int) -> TileT:
    """The tile, with no more stages than a program's product of a depth has use for."""
    # Stages beyond the last step would only take shared memory.
    return replace(tile, stages=min(tile.stages, -(-depth // tile.k) + 1))


def programs(tile: Tile, rows: int, columns: int) -> int:
    """Tiles in a product's output."""
    return -(-rows // tile.m) * -(-columns // tile.n)


class Stripes(NamedTuple):
    """How a product is shared out where a program keeps a stripe of rows for all of its tiles.

    Attributes:
        number: of stripes.
        shares: programs that a stripe's tiles are divided among.
        tiles: of a share; the last may have fewer.
    """

    number: int
    shares: int
    tiles: int


def stripes_for(rows: int, columns: int, height: int, width: int) -> Stripes:
    """Stripes for no more programs than there are multiprocessors, if the rows allow.

    Args:
        rows: M of the product.
        columns: N of the product, a multiple of the width.
        height: rows of a stripe.
        width: outputs of a tile.
    """
    number, tiles = -(-rows // height), columns // width
    each = -(-tiles // max(min(PROCESSORS // number, tiles), 1))
    return Stripes(number, -(-tiles // each), each)


def loadable(tile: Tile, *matrices: Tensor) -> Tile:
    """The tile, without the TMA where that cannot load: it wants rows at multiples of 16 bytes."""
    return replace(tile, tma=tile.tma and all(aligned(matrix) for matrix in matrices))


def aligned(matrix: Tensor) -> bool:
    """Whether the TMA can address a matrix's rows."""
    return matrix.data_ptr() % 16 == 0 and matrix.stride(0) * matrix.element_size() % 16 == 0


def operand(matrix: Tensor, rows: int, tile: Tile) -> Any:
    """A matrix as a kernel takes it: itself, or a descriptor that loads (rows, tile.k) at once."""
    return TensorDescriptor.from_tensor(matrix, [rows, tile.k]) if tile.tma else matrix


def rounds_coarsely(matrix: Tensor) -> bool:
    """Whether a GPU's approximate functions are better than the type of this matrix."""
    return matrix.is_cuda and matrix.dtype == torch.bfloat16


def product_type(matrix: Tensor) -> tl.dtype:
    """The type in which a matrix is multiplied: its own, but on a CPU float32.

    Triton's interpreter, which runs there, multiplies bfloat16 as if it were integers.
    """
    return tl.bfloat16 if matrix.is_cuda and matrix.dtype == torch.bfloat16 else tl.float32


@triton.jit  # type: ignore[untyped-decorator]
def tile_origin(  # type: ignore[no-untyped-def]
    rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr
):
    """First row and column of this program's tile; GROUP rows of tiles go column by column."""
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_n = tl.cdiv(columns, BLOCK_N)
    return nth_tile_origin(tl.program_id(0), tiles_m, tiles_n, BLOCK_M, BLOCK_N, GROUP)


@triton.jit  # type: ignore[untyped-decorator]
def nth_tile_origin(  # type: ignore[no-untyped-def]
    n, tiles_m, tiles_n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr
):
    """First row and column of the n-th of (tiles_m, tiles_n) tiles in that order."""
    first = n // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    place = n % (GROUP * tiles_n)
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


@triton.jit  # type: ignore[untyped-decorator]
def product_of_parts(left, right, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """(M, N) float32 of left (M, K) and right (N, K), or (PARTS, ..., K / PARTS) of them."""
    if PARTS == 1:
        product = tl.dot(left, right.T, input_precision="ieee")
    else:
        parts = tl.dot(left, tl.permute(right, (0, 2, 1)), input_precision="ieee")
        product = tl.sum(parts, 0)
    return product


@triton.jit  # type: ignore[untyped-decorator]
def gelu_tanh(x, FAST: tl.constexpr = False):  # type: ignore[no-untyped-def]
    """GELU x / 2 (1 + tanh u), as x sigmoid(2 u), which cannot overflow.

    FAST takes one special function an element instead of two, those being what bounds it.
    """
    if FAST:
        u = x * (0.7978845608028654 + 0.035677408136300125 * x * x)
        half = 0.5 * x
        y = half + half * fast_tanh(u)
    else:
        y = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return y


@triton.jit
def fast_tanh(x):  # type: ignore[no-untyped-def]
    """A GPU's own tanh, good to 2^-11."""
    return tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


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
