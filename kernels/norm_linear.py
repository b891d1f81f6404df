"""RMS norm, linear layer, and activation or rotary turn in one operator: FlashNorm.

Formula, for rows x and a weight W that the norm's gain has been folded into:

    y = activation((x W^T) * r),   r = 1 / sqrt(mean(x^2) + eps)

or, instead of an activation, the pairs of the leading columns turned as in kernels.rotary.

A row's norm is one number, so it commutes with the product and is applied to the finished
accumulator. The plain form writes the normalised rows to memory, reads them back, and rounds them
once more on the way. Pairs are turned there too, where they are still exact.

The squares that the norm sums come from whoever wrote x, as a few sums a row. Else a first kernel
sums them, so that the product's loop is left to the tensor cores alone. It must be: Hopper's read
their operands from shared memory in the background, and where a tile has a second reader, Triton
3.6 gives its buffers one too few and loads over one that is being read (triton-lang/triton#6691).

Few rows: a program multiplies the whole depth in one step. There is no loop, so its part of the
weight is in flight before the rows are even written, and the squares are summed from the rows it
holds anyway. Every warp multiplies a part of the depth of its own, as sums of one accumulator
would wait for each other.

Source: Graef et al. 2024, "FlashNorm", arXiv:2407.09577.

Shapes: M rows, D width of a row, N outputs, P parts of a row, T phases, K width of a head.
"""

from dataclasses import replace
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.language.extra.cuda import gdc_launch_dependents
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import resident_rows, weight_first
from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.matmul_tile import (
    ENOUGH_PROGRAMS,
    LEAST_ROWS,
    PROCESSORS,
    TILE_FLOAT32,
    Tile,
    aligned,
    gelu_tanh,
    load_columns,
    loadable,
    nth_tile_origin,
    operand,
    product_of_parts,
    product_type,
    programs,
    rounds_coarsely,
    row_pointers,
    store_tile,
    tile_origin,
    with_stages_for,
)
from kernels.product_epilogue import Normed
from kernels.turn import Turn, check_turn, load_phases, turn_options, turn_pairs, turned_reference

Activation = Literal["gelu"]

# From the largest, since the fewer loads a product, the fewer programs; each with the programs
# that it must make to keep an H100 or H200 busy.
_TILES = (
    (Tile(128, 256, 64, warps=8, stages=3, tma=True, tma_store=True, resident=PROCESSORS), 256),
    (Tile(128, 128, 64, warps=4, stages=3, tma=True), ENOUGH_PROGRAMS),
    (Tile(64, 128, 64, warps=4, stages=5, tma=True), 66),
    (Tile(64, 64, 128, warps=4, stages=4, tma=True, tma_store=True), 0),
)
# Outputs of a program whose weight comes first.
_FIRST_COLUMNS = 64
# Few rows, in one step over the depth: the fewer, the less each of many programs loads.
_FEW = Tile(32, 64, 0, warps=4, stages=1)
_VERY_FEW = Tile(16, 16, 0, warps=2, stages=1)
_FEWEST = Tile(8, 16, 0, warps=2, stages=1)
# As many rows as are multiplied in one step over the depth, and the deepest such step.
_FEW_ROWS = 64
_WHOLE_DEPTH = 1024
# From so many rows on, a tile is multiplied by Hopper's asynchronous instructions.
_ASYNCHRONOUS_ROWS = 64
# The tensor cores' least depth of a product.
_LEAST_DEPTH = 16
_ROWS_PER_PROGRAM = 4
MOST_PARTS = 64
# Squares that a thread can hold while the product is summed.
_SQUARES_PER_THREAD = 16


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
    if rows <= _FEW_ROWS and depth <= _WHOLE_DEPTH:
        few = _VERY_FEW if rows <= _VERY_FEW.m or depth > 512 else _FEW
        few = _FEWEST if rows <= _FEWEST.m else few
        return replace(few, k=max(triton.next_power_of_2(depth), 128))
    tile = next(t for t, least in _TILES if programs(t, rows, columns) >= least)
    return with_stages_for(tile, depth)


def norm_linear_reference(
    x_MD: Tensor,
    weight_ND: Tensor,
    gamma_D: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    *,
    squares_MP: Tensor | None = None,
    turn: Turn | None = None,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        x_MD: (..., D) rows.
        weight_ND: (N, D) the layer's weight.
        gamma_D: (D,) the norm's gain, or None once `fold` has moved it into the weight.
        eps: added to the mean square.
        activation: None, or "gelu" in its tanh approximation.
        squares_MP: (M, P) float32 sums of squares of P parts of every row, M counting all rows of
            x, for a form that need not sum them again. This one does.
        turn: how the leading columns turn, or None.

    Returns:
        (..., N), of x's type.
    """
    y = F.linear(F.rms_norm(x_MD, x_MD.shape[-1:], gamma_D, eps), weight_ND)
    if turn is not None:
        return turned_reference(y, turn)
    return y if activation is None else F.gelu(y, approximate="tanh")


def norm_linear(
    x_MD: Tensor,
    weight_ND: Tensor,
    gamma_D: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    *,
    squares_MP: Tensor | None = None,
    turn: Turn | None = None,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = norm_linear_reference
    if form_for(x_MD, wins=_wins(x_MD) and gamma_D is None) == "triton":
        form = norm_linear_triton
    return form(x_MD, weight_ND, gamma_D, eps, activation, squares_MP=squares_MP, turn=turn)


def norm_linear_triton(
    x_MD: Tensor,
    weight_ND: Tensor,
    gamma_D: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    *,
    squares_MP: Tensor | None = None,
    turn: Turn | None = None,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        x_MD: (..., D) rows.
        weight_ND: (N, D), of x's type, contiguous in D as x is.
        gamma_D: None.
        eps: added to the mean square.
        activation: None or "gelu"; None with a turn.
        squares_MP: (M, P) float32 contiguous, P at most MOST_PARTS, or None.
        turn: how the leading columns turn, or None.
        config: the tile, else from `tile_for`. One as deep as the rows, without the TMA, takes the
            whole depth in one step.
        out: (..., N) contiguous, to write to.

    Raises:
        ValueError: the gain is not folded, or types, shapes or layouts differ from the above.
    """
    if gamma_D is not None:
        raise ValueError("fold the gain into the weight first")
    if x_MD.dtype != weight_ND.dtype:
        raise ValueError(f"rows are {x_MD.dtype}, the weight {weight_ND.dtype}")
    depth, columns = x_MD.shape[-1], weight_ND.shape[0]
    x = x_MD.reshape(-1, depth)
    if x.stride(-1) != 1 or weight_ND.stride(-1) != 1:
        raise ValueError("rows and weight must be contiguous in D")
    if squares_MP is not None:
        _check_squares(squares_MP, len(x))
    if turn is not None:
        check_turn(turn, columns, activation)
    shape = (*x_MD.shape[:-1], columns)
    out = torch.empty(shape, device=x.device, dtype=x.dtype) if out is None else out
    if out.shape != shape or not out.is_contiguous():
        raise ValueError(f"out must be contiguous and {shape}")
    if out.numel():
        out_MN = out.view(-1, columns)
        follows = None
        if config is None and squares_MP is not None:
            follows = Normed(squares_MP, eps, activation == "gelu", turn)
        if follows and weight_first.serves(x, weight_ND, _FIRST_COLUMNS, turn):
            weight_first.weight_first(x, weight_ND, follows, _FIRST_COLUMNS, out_MN)
        elif follows and aligned(out_MN) and resident_rows.serves(x, weight_ND, turn):
            resident_rows.resident_rows(x, weight_ND, follows, out_MN)
        else:
            tile = config or _tile(x, columns)
            _launch(x, weight_ND, eps, activation, squares_MP, turn, tile, out_MN)
    return out


def _wins(x_MD: Tensor) -> bool:
    """Whether the kernel is faster than a norm and cuBLAS: docs/measured/kernel_speed.md."""
    # At every size; other types have no tensor cores here, and unaligned rows load slowly.
    return x_MD.dtype == torch.bfloat16 and x_MD.shape[-1] % 8 == 0


def _tile(x_MD: Tensor, columns: int) -> Tile:
    if x_MD.dtype == torch.float32:
        return TILE_FLOAT32
    return tile_for(len(x_MD), columns, x_MD.shape[1])


def _check_squares(squares_MP: Tensor, rows: int) -> None:
    if squares_MP.dtype != torch.float32 or not squares_MP.is_contiguous():
        raise ValueError("squares must be float32 and contiguous")
    if squares_MP.shape[:-1] != (rows,) or not 1 <= squares_MP.shape[-1] <= MOST_PARTS:
        raise ValueError(f"squares are {tuple(squares_MP.shape)} for {rows} rows")


def _launch(
    x_MD: Tensor,
    weight_ND: Tensor,
    eps: float,
    activation: Activation | None,
    squares_MP: Tensor | None,
    turn: Turn | None,
    tile: Tile,
    out_MN: Tensor,
) -> None:
    (rows, depth), columns = x_MD.shape, len(weight_ND)
    options = {
        **turn_options(turn, tile),
        **launch_options(x_MD),
        "DIM": depth,
        "BLOCK_M": tile.m,
        "BLOCK_N": tile.n,
        "GROUP": tile.group,
        "DOT": product_type(x_MD),
        "GELU": activation == "gelu",
        "FAST": rounds_coarsely(x_MD),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
    if tile.k >= depth and not tile.tma:
        parts = _parts(tile)
        _whole_depth_kernel[(programs(tile, rows, columns),)](
            x_MD,
            weight_ND,
            squares_MP,
            out_MN,
            rows,
            columns,
            x_MD.stride(0),
            weight_ND.stride(0),
            eps,
            BLOCK_K=tile.k // parts,
            PARTS=parts,
            # The left operand wants 64 rows for Hopper's asynchronous instructions, 16 for others.
            SWAP=tile.m < LEAST_ROWS or tile.m < _ASYNCHRONOUS_ROWS <= tile.n,
            SQUARES=0 if squares_MP is None else squares_MP.shape[1],
            **options,
        )
        return
    squares = _squares(x_MD) if squares_MP is None else squares_MP
    tile = loadable(tile, x_MD, weight_ND)
    tma_store = tile.tma_store and aligned(out_MN)
    most = 32 * tile.warps * _SQUARES_PER_THREAD // tile.m
    tiles = programs(tile, rows, columns)
    _norm_linear_kernel[(min(tile.resident or tiles, tiles),)](
        operand(x_MD, tile.m, tile),
        operand(weight_ND, tile.n, tile),
        squares,
        TensorDescriptor.from_tensor(out_MN, [tile.m, tile.n]) if tma_store else out_MN,
        rows,
        columns,
        x_MD.stride(0),
        weight_ND.stride(0),
        eps,
        BLOCK_K=tile.k,
        SQUARES=squares.shape[1],
        EARLY=not tile.resident and triton.next_power_of_2(squares.shape[1]) <= most,
        TMA=tile.tma,
        TMA_STORE=tma_store,
        RESIDENT=tile.resident > 0,
        **options,
    )


def _parts(tile: Tile) -> int:
    """Into how many parts a step over the whole depth is cut."""
    if max(tile.m, tile.n) >= _ASYNCHRONOUS_ROWS:
        return 1
    return max(min(tile.warps, tile.k // _LEAST_DEPTH), 1)


def _squares(x_MD: Tensor) -> Tensor:
    """(M, 1) float32 sums of the rows' squares."""
    rows, depth = x_MD.shape
    squares = torch.empty((rows, 1), device=x_MD.device, dtype=torch.float32)
    _squares_kernel[(-(-rows // _ROWS_PER_PROGRAM),)](
        x_MD,
        squares,
        rows,
        x_MD.stride(0),
        DIM=depth,
        BLOCK_M=_ROWS_PER_PROGRAM,
        BLOCK_D=triton.next_power_of_2(depth),
        **launch_options(x_MD),
    )
    return squares


@triton.jit  # type: ignore[untyped-decorator]
def _squares_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    squares_ptr,
    rows,
    x_stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    first_row = tl.program_id(0) * BLOCK_M
    x = load_columns(row_pointers(x_ptr, first_row, rows, x_stride, BLOCK_M), 0, DIM, BLOCK_D)
    wide = x.to(tl.float32)
    row = first_row + tl.arange(0, BLOCK_M)
    tl.store(squares_ptr + row, tl.sum(wide * wide, 1), row < rows)


@triton.jit  # type: ignore[untyped-decorator]
def _whole_depth_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    weight_ptr,
    squares_ptr,
    out_ptr,
    rows,
    columns,
    x_stride,
    weight_stride,
    eps,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    SWAP: tl.constexpr,
    GROUP: tl.constexpr,
    DOT: tl.constexpr,
    SQUARES: tl.constexpr,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    GELU: tl.constexpr,
    FAST: tl.constexpr,
    PDL: tl.constexpr,
):
    first_row, first_column = tile_origin(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    if PDL:
        # Before this weight has come, so that the next kernel may fetch its own.
        gdc_launch_dependents()
    # No kernel writes weights: they may come before whatever the kernel before still does.
    weight = load_parts(
        weight_ptr, first_column, columns, weight_stride, DIM, BLOCK_N, BLOCK_K, PARTS
    )
    wait_for_inputs(PDL)
    if SQUARES:
        squares = _load_squares(squares_ptr, first_row, rows, SQUARES, BLOCK_M)
    x = load_parts(x_ptr, first_row, rows, x_stride, DIM, BLOCK_M, BLOCK_K, PARTS)
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
    if SWAP:
        product = product_of_parts(weight.to(DOT), x.to(DOT), PARTS).T
    else:
        product = product_of_parts(x.to(DOT), weight.to(DOT), PARTS)
    if SQUARES:
        total = tl.sum(squares, 1)
    else:
        wide = x.to(tl.float32)
        total = tl.sum(wide * wide, 1 if PARTS == 1 else 2)
        if PARTS > 1:
            total = tl.sum(total, 0)
    y = _finish(product, total, eps, DIM, GELU, FAST)
    if HEAD:
        y = turn_pairs(y, cos, sin)
    store_tile(out_ptr, y, first_row, first_column, rows, columns)


@triton.jit  # type: ignore[untyped-decorator]
def _norm_linear_kernel(  # type: ignore[no-untyped-def]
    x_ref,
    weight_ref,
    squares_ptr,
    out_ref,
    rows,
    columns,
    x_stride,
    weight_stride,
    eps,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    DOT: tl.constexpr,
    SQUARES: tl.constexpr,
    EARLY: tl.constexpr,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    GELU: tl.constexpr,
    FAST: tl.constexpr,
    TMA: tl.constexpr,
    TMA_STORE: tl.constexpr,
    RESIDENT: tl.constexpr,
    PDL: tl.constexpr,
):
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_n = tl.cdiv(columns, BLOCK_N)
    first_tile = tl.program_id(0)
    last_tile = tiles_m * tiles_n if RESIDENT else first_tile + 1
    wait_for_inputs(PDL)
    # Flattened, the loads of a tile begin before the last one is finished.
    for tile in tl.range(first_tile, last_tile, tl.num_programs(0), flatten=RESIDENT):
        first_row, first_column = nth_tile_origin(tile, tiles_m, tiles_n, BLOCK_M, BLOCK_N, GROUP)
        if EARLY:
            squares = _load_squares(squares_ptr, first_row, rows, SQUARES, BLOCK_M)
        product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(0, DIM, BLOCK_K):
            if TMA:
                x = x_ref.load([first_row, k])
                weight = weight_ref.load([first_column, k])
            else:
                x_rows = row_pointers(x_ref, first_row, rows, x_stride, BLOCK_M)
                weight_rows = row_pointers(
                    weight_ref, first_column, columns, weight_stride, BLOCK_N
                )
                x = load_columns(x_rows, k, DIM, BLOCK_K)
                weight = load_columns(weight_rows, k, DIM, BLOCK_K)
            product = tl.dot(x.to(DOT), weight.to(DOT).T, product, input_precision="ieee")
        if not EARLY:
            squares = _load_squares(squares_ptr, first_row, rows, SQUARES, BLOCK_M)
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
        y = _finish(product, tl.sum(squares, 1), eps, DIM, GELU, FAST)
        if HEAD:
            y = turn_pairs(y, cos, sin)
        if TMA_STORE:
            out_ref.store([first_row, first_column], y.to(out_ref.dtype))
        else:
            store_tile(out_ref, y, first_row, first_column, rows, columns)


@triton.jit  # type: ignore[untyped-decorator]
def load_parts(  # type: ignore[no-untyped-def]
    base,
    first,
    rows,
    stride,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
):
    """(PARTS, BLOCK, BLOCK_K) of whole rows, cut up by their depth; without the first if it is 1.

    Zero past the last row and past the depth.
    """
    row = first + tl.arange(0, BLOCK)
    column = tl.arange(0, BLOCK_K)
    if PARTS == 1:
        place = row.to(tl.int64)[:, None] * stride + column[None, :]
        inside = (row < rows)[:, None] & (column < DIM)[None, :]
    else:
        column = (tl.arange(0, PARTS) * BLOCK_K)[:, None, None] + column[None, None, :]
        place = row.to(tl.int64)[None, :, None] * stride + column
        inside = (row < rows)[None, :, None] & (column < DIM)
    return tl.load(base + place, inside, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _load_squares(  # type: ignore[no-untyped-def]
    squares_ptr, first_row, rows, PARTS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """(BLOCK_M, PARTS), filled up to a power of two with zeros."""
    row = first_row + tl.arange(0, BLOCK_M)
    part = tl.arange(0, triton.next_power_of_2(PARTS))
    place = row.to(tl.int64)[:, None] * PARTS + part[None, :]
    return tl.load(squares_ptr + place, (row < rows)[:, None] & (part < PARTS)[None, :], 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _finish(  # type: ignore[no-untyped-def]
    product, squares, eps, DIM: tl.constexpr, GELU: tl.constexpr, FAST: tl.constexpr
):
    """What follows a tile's product: the norm, and the activation."""
    y = product * tl.rsqrt(squares / DIM + eps)[:, None]
    if GELU:
        y = gelu_tanh(y, FAST)
    return y
