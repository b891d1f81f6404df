"""Linear layer without bias, the residual that it is added to, and squares for the next norm.

Formula:

    y = residual + x W^T,   s_p = sum of y^2 over the p-th part of a row

cuBLAS first copies the residual to where the sum will be, which costs a launch; with few rows that
is a good part of the whole. The kernels add it to the accumulator. They also leave the sums of
squares of the rows that they have at hand, of the values as rounded, so that an RMS norm need not
read the rows again. The kernels are launched programmatically dependent (see dependent_launch).

Many rows: a program makes a tile of the output in a loop over the depth. Its residual is asked for
before the loop, so that it arrives behind the products.

Few rows: a program takes the whole depth at once, and its warps share that. All of the weight's
tile is on its way before the program waits for the kernel that makes its rows.

In between, where tiles are too few for the GPU and the depth is long, several programs share the
depth of a tile. Each writes its part in float32, and a second kernel adds the parts in their order,
so that equal inputs give equal bits. It is launched before the parts are done, which hides most of
a launch's cost. A counter, by which the last program of a tile finds out that it is the last, would
save the launch, but would outlive the call: no two streams or CUDA graphs could run at once.

Shapes: M rows, K width of a row, N outputs, P parts of a row of outputs, R rows of the residual.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import weight_first
from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.matmul_tile import (
    ENOUGH_PROGRAMS,
    LEAST_ROWS,
    Tile,
    aligned,
    load_columns,
    loadable,
    operand,
    product_of_parts,
    product_type,
    programs,
    row_pointers,
    store_tile,
    tile_origin,
    with_stages_for,
)
from kernels.product_epilogue import Added

# What a reader of the squares may have to add up for a row.
MOST_PARTS = 64


class Rows(NamedTuple):
    """Rows and what is known of them.

    Attributes:
        x: (..., N) the rows.
        squares_MP: (M, P) float32, for each row the sums of squares of its P <= MOST_PARTS parts,
            with the leading dimensions in one; None where nobody has added them up.
    """

    x: Tensor
    squares_MP: Tensor | None = None


class _Residual(NamedTuple):
    """A residual in memory, in blocks of contiguous rows.

    Attributes:
        x: the residual.
        rows: rows of a block.
        step: numbers from where one block begins to where the next does, 0 if it comes again.
    """

    x: Tensor
    rows: int
    step: int


@dataclass(frozen=True)
class SumTile(Tile):
    """How the product is cut up; `resident` is not used, a program makes one tile.

    Attributes:
        split: programs that share the depth of a tile of the output.
        whole: the depth in one step, whatever `k` and `stages`: for few rows.
    """

    split: int = 1
    whole: bool = False


# Exact float32 products have no tensor cores to feed.
_FLOAT32 = SumTile(32, 32, 32, warps=4, stages=2)
_FEW_ROWS = 32
_WHOLE = SumTile(16, 16, 0, warps=4, stages=1, whole=True)
_FEWEST = SumTile(8, 16, 0, warps=2, stages=1, whole=True)
# A deeper tile does not fit the registers.
_WHOLE_DEPTH = 2048
# From the largest, since the fewer loads a product, the fewer programs; each with the programs
# that it must make to keep an H100 or H200 busy. With so many that two share a multiprocessor, one
# stage fewer leaves room for both.
_TILES = (
    (SumTile(128, 128, 64, warps=8, stages=3, tma=True), 200),
    (SumTile(128, 128, 64, warps=8, stages=4, tma=True), ENOUGH_PROGRAMS),
    (SumTile(64, 64, 128, warps=4, stages=4, tma=True), ENOUGH_PROGRAMS),
)
_SMALLEST = SumTile(64, 32, 256, warps=4, stages=3, tma=True)
_SPLIT = SumTile(64, 64, 128, warps=4, stages=4, tma=True, split=2)
_SPLIT_DEPTH = 1024
# Outputs of a program whose weight comes first.
_FIRST_COLUMNS = 32
# The kernel that adds parts.
_ADD_ROWS = 2
_ADD_COLUMNS = 1024


def tile_for(rows: int, columns: int, depth: int) -> SumTile:
    """The tile for a product of bfloat16; arguments are M, N and K."""
    if rows <= _FEW_ROWS and depth <= _WHOLE_DEPTH and columns <= MOST_PARTS * _WHOLE.n:
        whole = _FEWEST if rows <= _FEWEST.m else _WHOLE
        narrow = 8 if columns <= MOST_PARTS * 8 else _WHOLE.n
        if depth > 1024:
            return replace(whole, n=narrow, warps=8)
        return whole if whole is _FEWEST else replace(whole, n=narrow)
    busy = (
        tile
        for tile, least in _TILES
        if tile.n <= columns <= MOST_PARTS * tile.n and programs(tile, rows, columns) >= least
    )
    tile = next(busy, _SPLIT if depth >= _SPLIT_DEPTH else _SMALLEST)
    return with_stages_for(tile, -(-depth // tile.split))


def linear_add_reference(x_MK: Tensor, weight_NK: Tensor, residual_RN: Tensor) -> Rows:
    """Plain PyTorch: what the kernels must equal.

    Args:
        x_MK: (..., K) rows.
        weight_NK: (N, K) the layer's weight.
        residual_RN: (..., N) what is added to; of x's leading dimensions it may lack the first
            ones, and is then repeated over them.

    Returns:
        (..., N), of x's type, and no squares.
    """
    shape = (*x_MK.shape[:-1], len(weight_NK))
    residual = residual_RN.expand(shape).reshape(-1, shape[-1])
    y = torch.addmm(residual, x_MK.reshape(-1, x_MK.shape[-1]), weight_NK.t())
    return Rows(y.view(shape))


def linear_add(x_MK: Tensor, weight_NK: Tensor, residual_RN: Tensor) -> Rows:
    """The form for the case at hand, arguments as the reference's; kernels give squares, too."""
    if form_for(x_MK, wins=_wins(x_MK, weight_NK)) == "triton":
        return linear_add_triton(x_MK, weight_NK, residual_RN)
    return linear_add_reference(x_MK, weight_NK, residual_RN)


def linear_add_triton(
    x_MK: Tensor,
    weight_NK: Tensor,
    residual_RN: Tensor,
    *,
    config: SumTile | None = None,
    out: Tensor | None = None,
) -> Rows:
    """The Triton kernels; arguments as the reference's, without gradients.

    Args:
        x_MK: (..., K) rows.
        weight_NK: (N, K), of x's type, contiguous in K as x is. No kernel that is still running
            may be writing it.
        residual_RN: (..., N), of x's type. A slice of the second dimension is read in place.
        config: the tile, else from `tile_for`.
        out: (..., N) contiguous, to write to; may be the residual itself.

    Returns:
        The rows, and squares of the parts that a program makes: equal in size, save the last where
        the tile's width does not divide N.

    Raises:
        ValueError: types, shapes or layouts differ from the above, or a row has too many parts.
    """
    types = x_MK.dtype, weight_NK.dtype, residual_RN.dtype
    if len(set(types)) > 1:
        raise ValueError(f"rows, weight and residual must be of one type, not {types}")
    depth, columns = x_MK.shape[-1], weight_NK.shape[0]
    x = x_MK.reshape(-1, depth)
    if x.stride(-1) != 1 or weight_NK.stride(-1) != 1:
        raise ValueError("rows and weight must be contiguous in K")
    shape = (*x_MK.shape[:-1], columns)
    if residual_RN.dim() < 1 or residual_RN.shape != shape[len(shape) - residual_RN.dim() :]:
        raise ValueError(f"the residual must be {shape}, or the last dimensions of that")
    out = torch.empty(shape, device=x.device, dtype=x.dtype) if out is None else out
    if out.shape != shape or not out.is_contiguous():
        raise ValueError(f"out must be contiguous and {shape}")
    first = config is None and columns <= MOST_PARTS * _FIRST_COLUMNS
    first = first and weight_first.serves(x, weight_NK, _FIRST_COLUMNS)
    tile = config or _tile(x, columns)
    width = _FIRST_COLUMNS if first else _ADD_COLUMNS if tile.split > 1 else tile.n
    parts = -(-columns // width)
    if parts > MOST_PARTS:
        raise ValueError(f"{columns} columns are more than {MOST_PARTS} parts of {width}")
    squares_MP = torch.empty((len(x), parts), device=x.device, dtype=torch.float32)
    if out.numel():
        residual = _placed(residual_RN, x_MK.dim(), columns)
        if first:
            follows = Added(*residual, squares_MP)
            out_MN = out.view(-1, columns)
            weight_first.weight_first(x, weight_NK, follows, _FIRST_COLUMNS, out_MN)
        elif tile.whole:
            _whole(x, weight_NK, residual, tile, out, squares_MP)
        elif tile.split > 1:
            _in_parts(x, weight_NK, residual, tile, out, squares_MP)
        else:
            _product(x, weight_NK, residual, tile, out, squares_MP)
    return Rows(out, squares_MP)


def _wins(x_MK: Tensor, weight_NK: Tensor) -> bool:
    """Whether the kernels are faster than cuBLAS: docs/measured/kernel_speed.md."""
    # At every size; other types have no tensor cores here, and unaligned rows load slowly.
    aligned = x_MK.dtype == torch.bfloat16 and x_MK.shape[-1] % 8 == 0
    return aligned and len(weight_NK) <= MOST_PARTS * _WHOLE.n


def _tile(x_MK: Tensor, columns: int) -> SumTile:
    if x_MK.dtype == torch.float32:
        return _FLOAT32
    return tile_for(len(x_MK), columns, x_MK.shape[1])


def _placed(residual_RN: Tensor, dims: int, columns: int) -> _Residual:
    """The residual of rows of so many dimensions, copied only where kernels cannot read it."""
    block = residual_RN[0]
    if residual_RN.dim() == dims > 2 and block.is_contiguous() and not residual_RN.is_contiguous():
        return _Residual(residual_RN, block.numel() // columns, residual_RN.stride(0))
    return _Residual(residual_RN.contiguous(), residual_RN.numel() // columns, 0)


def _whole(
    x_MK: Tensor,
    weight_NK: Tensor,
    residual: _Residual,
    tile: SumTile,
    out: Tensor,
    squares_MP: Tensor,
) -> None:
    (rows, depth), columns = x_MK.shape, len(weight_NK)
    _whole_kernel[(programs(tile, rows, columns),)](
        x_MK,
        weight_NK,
        residual.x,
        out,
        squares_MP,
        rows,
        columns,
        residual.rows,
        residual.step,
        x_MK.stride(0),
        weight_NK.stride(0),
        DIM=depth,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        SHARES=tile.warps,
        # The tensor cores take no less than 16.
        SHARE=max(16, triton.next_power_of_2(depth) // tile.warps),
        SWAP=tile.m < LEAST_ROWS,
        GROUP=tile.group,
        DOT=product_type(x_MK),
        BLOCKS=residual.rows < rows,
        num_warps=tile.warps,
        **launch_options(x_MK),
    )


def _in_parts(
    x_MK: Tensor,
    weight_NK: Tensor,
    residual: _Residual,
    tile: SumTile,
    out: Tensor,
    squares_MP: Tensor,
) -> None:
    rows, columns = len(x_MK), len(weight_NK)
    parts = torch.empty((tile.split, rows, columns), device=x_MK.device, dtype=torch.float32)
    _product(x_MK, weight_NK, None, tile, parts, None)
    _add_parts_kernel[(-(-rows // _ADD_ROWS), squares_MP.shape[1])](
        parts,
        residual.x,
        out,
        squares_MP,
        rows,
        columns,
        residual.rows,
        residual.step,
        SPLIT=tile.split,
        BLOCK_M=_ADD_ROWS,
        BLOCK_N=min(triton.next_power_of_2(columns), _ADD_COLUMNS),
        BLOCKS=residual.rows < rows,
        num_warps=4,
        **launch_options(x_MK),
    )


def _product(
    x_MK: Tensor,
    weight_NK: Tensor,
    residual: _Residual | None,
    tile: SumTile,
    out: Tensor,
    squares_MP: Tensor | None,
) -> None:
    """The sum of product and residual, or without one all parts of the product."""
    (rows, depth), columns = x_MK.shape, len(weight_NK)
    loads = loadable(tile, x_MK, weight_NK)
    stores = tile.tma_store and tile.split == 1 and aligned(out.view(-1, columns))
    added = residual or _Residual(x_MK, rows, 0)
    _product_kernel[(programs(tile, rows, columns), tile.split)](
        operand(x_MK, tile.m, loads),
        operand(weight_NK, tile.n, loads),
        None if residual is None else residual.x,
        _target(out, tile) if stores else out,
        squares_MP,
        rows,
        columns,
        added.rows,
        added.step,
        x_MK.stride(0),
        weight_NK.stride(0),
        DIM=depth,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=tile.k,
        SPLIT=tile.split,
        GROUP=tile.group,
        TMA=loads.tma,
        TMA_STORE=stores,
        DOT=product_type(x_MK),
        BLOCKS=added.rows < rows,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **launch_options(x_MK),
    )


def _target(out: Tensor, tile: Tile) -> TensorDescriptor:
    """The output as a descriptor that stores a tile at once."""
    return TensorDescriptor.from_tensor(out.view(-1, out.shape[-1]), [tile.m, tile.n])


@triton.jit  # type: ignore[untyped-decorator]
def _product_kernel(  # type: ignore[no-untyped-def]
    x_ref,
    weight_ref,
    residual_ptr,
    out_ref,
    squares_ptr,
    rows,
    columns,
    block_rows,
    block_step,
    x_stride,
    weight_stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    GROUP: tl.constexpr,
    TMA: tl.constexpr,
    TMA_STORE: tl.constexpr,
    DOT: tl.constexpr,
    BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    if not TMA:
        x_rows = row_pointers(x_ref, first_row, rows, x_stride, BLOCK_M)
        weight_rows = row_pointers(weight_ref, first_column, columns, weight_stride, BLOCK_N)
    wait_for_inputs(PDL)
    if SPLIT == 1:
        residual = load_residual(
            residual_ptr,
            first_row,
            first_column,
            rows,
            columns,
            block_rows,
            BLOCK_M,
            BLOCK_N,
            BLOCKS,
            block_step,
        )
        first = 0
        end = DIM
    else:
        first = tl.program_id(1) * (tl.cdiv(tl.cdiv(DIM, BLOCK_K), SPLIT) * BLOCK_K)
        end = tl.minimum(first + tl.cdiv(tl.cdiv(DIM, BLOCK_K), SPLIT) * BLOCK_K, DIM)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(first, end, BLOCK_K):
        if TMA:
            x = x_ref.load([first_row, k])
            weight = weight_ref.load([first_column, k])
        else:
            x = load_columns(x_rows, k, DIM, BLOCK_K)
            weight = load_columns(weight_rows, k, DIM, BLOCK_K)
        product = tl.dot(x.to(DOT), weight.to(DOT).T, product, input_precision="ieee")
    if SPLIT == 1:
        y = (product + residual.to(tl.float32)).to(residual.dtype)
        if TMA_STORE:
            out_ref.store([first_row, first_column], y)
        else:
            store_tile(out_ref, y, first_row, first_column, rows, columns)
        _store_squares(squares_ptr, y, first_row, first_column, rows, columns)
    else:
        part = out_ref + tl.program_id(1).to(tl.int64) * rows * columns
        store_tile(part, product, first_row, first_column, rows, columns)


@triton.jit  # type: ignore[untyped-decorator]
def _add_parts_kernel(  # type: ignore[no-untyped-def]
    parts_ptr,
    residual_ptr,
    out_ptr,
    squares_ptr,
    rows,
    columns,
    block_rows,
    block_step,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):
    first_row = tl.program_id(0) * BLOCK_M
    first_column = tl.program_id(1) * BLOCK_N
    wait_for_inputs(PDL)
    residual = load_residual(
        residual_ptr,
        first_row,
        first_column,
        rows,
        columns,
        block_rows,
        BLOCK_M,
        BLOCK_N,
        BLOCKS,
        block_step,
    )
    y = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for part in tl.static_range(SPLIT):
        y += load_residual(
            parts_ptr + tl.full((), part, tl.int64) * rows * columns,
            first_row,
            first_column,
            rows,
            columns,
            rows,
            BLOCK_M,
            BLOCK_N,
            False,
        )
    y = (y + residual.to(tl.float32)).to(out_ptr.dtype.element_ty)
    store_tile(out_ptr, y, first_row, first_column, rows, columns)
    _store_squares(squares_ptr, y, first_row, first_column, rows, columns)


@triton.jit  # type: ignore[untyped-decorator]
def _whole_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    weight_ptr,
    residual_ptr,
    out_ptr,
    squares_ptr,
    rows,
    columns,
    block_rows,
    block_step,
    x_stride,
    weight_stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SHARES: tl.constexpr,
    SHARE: tl.constexpr,
    SWAP: tl.constexpr,
    GROUP: tl.constexpr,
    DOT: tl.constexpr,
    BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    # Here already, as loading the weight takes a while: the next kernel can load its own by then.
    if PDL:
        gdc_launch_dependents()
    weight_rows = row_pointers(weight_ptr, first_column, columns, weight_stride, BLOCK_N)
    weight_SNK = _load_shares(weight_rows, DIM, SHARES, SHARE)
    wait_for_inputs(PDL)
    # Before the rows, whose way through shared memory would hold it up.
    residual = load_residual(
        residual_ptr,
        first_row,
        first_column,
        rows,
        columns,
        block_rows,
        BLOCK_M,
        BLOCK_N,
        BLOCKS,
        block_step,
    )
    x_rows = row_pointers(x_ptr, first_row, rows, x_stride, BLOCK_M)
    x_SMK = _load_shares(x_rows, DIM, SHARES, SHARE)
    # A share of the depth a warp.
    if SWAP:
        product = product_of_parts(weight_SNK.to(DOT), x_SMK.to(DOT), SHARES).T
    else:
        product = product_of_parts(x_SMK.to(DOT), weight_SNK.to(DOT), SHARES)
    y = (product + residual.to(tl.float32)).to(out_ptr.dtype.element_ty)
    store_tile(out_ptr, y, first_row, first_column, rows, columns)
    _store_squares(squares_ptr, y, first_row, first_column, rows, columns)


@triton.jit  # type: ignore[untyped-decorator]
def _load_shares(  # type: ignore[no-untyped-def]
    row_pointers_M1, DIM: tl.constexpr, SHARES: tl.constexpr, SHARE: tl.constexpr
):
    """(SHARES, M, SHARE) of rows of DIM columns, zero past the last."""
    column = tl.arange(0, SHARES)[:, None, None] * SHARE + tl.arange(0, SHARE)[None, None, :]
    if SHARES * SHARE == DIM:
        shares = tl.load(row_pointers_M1[None, :, :] + column)
    else:
        shares = tl.load(row_pointers_M1[None, :, :] + column, mask=column < DIM, other=0.0)
    return shares


@triton.jit  # type: ignore[untyped-decorator]
def load_residual(  # type: ignore[no-untyped-def]
    residual_ptr,
    first_row,
    first_column,
    rows,
    columns,
    block_rows,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKS: tl.constexpr,
    block_step=0,
):
    """A tile of rows in one contiguous block, or in BLOCKS that begin `block_step` apart."""
    row = tl.minimum(first_row + tl.arange(0, BLOCK_M), rows - 1)
    place = row.to(tl.int64) * columns
    if BLOCKS:
        place = (row // block_rows).to(tl.int64) * block_step + (row % block_rows) * columns
    column = first_column + tl.arange(0, BLOCK_N)
    place = place[:, None] + column[None, :]
    return tl.load(residual_ptr + place, (column < columns)[None, :], 0.0)


@triton.jit
def _store_squares(  # type: ignore[no-untyped-def]
    squares_ptr, y, first_row, first_column, rows, columns
):
    """Writes the sums of squares of a tile's rows."""
    BLOCK_M: tl.constexpr = y.shape[0]
    BLOCK_N: tl.constexpr = y.shape[1]
    row = first_row + tl.arange(0, BLOCK_M)
    column = first_column + tl.arange(0, BLOCK_N)
    inside = tl.where((column < columns)[None, :], y.to(tl.float32), 0.0)
    place = row.to(tl.int64) * tl.cdiv(columns, BLOCK_N) + first_column // BLOCK_N
    tl.store(squares_ptr + place, tl.sum(inside * inside, 1), row < rows)
