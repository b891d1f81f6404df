"""Product of 8-bit rows and an 8-bit weight, exact in int32, and what follows it.

The tensor cores multiply int8 at twice the rate of bfloat16, and operands are half the bytes. That
leaves the writing of the result to bound a large product, so with many tiles a program makes
several: the next one's loads are in flight while the last one is finished and written.

Shapes: M rows, K width of a row, N outputs.
"""

import functools
from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.int8_epilogue import Epilogue, finish_tile, load_operands, load_scales
from kernels.int8_resident import int8_resident, serves
from kernels.int8_weight import Int8Weight, check_weight
from kernels.matmul_tile import (
    ENOUGH_PROGRAMS,
    PROCESSORS,
    Tile,
    aligned,
    load_columns,
    loadable,
    nth_tile_origin,
    operand,
    programs,
    row_pointers,
    store_tile,
    with_stages_for,
)

_LARGE = Tile(128, 128, 128, warps=4, stages=3, tma=True, tma_store=True)
# From the largest, since the fewer loads a product, the fewer programs; each with the programs
# that it must make to keep an H100 or H200 busy.
_TILES = (
    (_LARGE, 200),
    (Tile(64, 128, 128, warps=4, stages=4, tma=True, tma_store=True), ENOUGH_PROGRAMS),
    (Tile(64, 64, 256, warps=4, stages=3, tma=True), 66),
    (Tile(64, 32, 512, warps=4, stages=4, tma=True), 0),
)


def tile_for(rows: int, columns: int, depth: int, epilogue: Epilogue) -> Tile:
    """The tile for a product of int8.

    Args:
        rows: M of the product.
        columns: N of the product.
        depth: K of the product.
        epilogue: what follows the sums.
    """
    tile = next(t for t, least in _TILES if programs(t, rows, columns) >= least)
    tiles = programs(tile, rows, columns)
    alone = epilogue.turn is None and epilogue.residual is None
    if tile is _LARGE and epilogue.activation is not None and epilogue.out_scale is not None:
        # It takes long, and leaves room for the next tile's loads; two share a multiprocessor.
        tile = replace(tile, resident=2 * PROCESSORS)
    elif tile is _LARGE and alone and 2 * PROCESSORS < tiles <= 3 * PROCESSORS:
        # With few registers, and less depth in flight, three programs fit where two did.
        tile = replace(tile, k=64, stages=4)
    return with_stages_for(tile, depth)


def int8_matmul_reference(
    q_MK: Tensor, scale_M: Tensor | float, weight: Int8Weight, epilogue: Epilogue
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        q_MK: (..., K) int8 rows.
        scale_M: (...) float32 their scales, or one of them all.
        weight: (N, K).
        epilogue: what follows the sums.

    Returns:
        (..., N).
    """
    return epilogue.of(exact_sums(q_MK, weight.q_NK), scale_M, weight.scale_N)


def int8_matmul_triton(
    q_MK: Tensor,
    scale_M: Tensor | float,
    weight: Int8Weight,
    epilogue: Epilogue,
    *,
    config: Tile | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's.

    Args:
        q_MK: (..., K) int8, contiguous in K.
        scale_M: (...) float32 contiguous, or a number.
        weight: (N, K).
        epilogue: what follows the sums.
        config: the tile; by default the kernel of int8_resident where it serves, else the tile of
            `tile_for`.
        out: (..., N) contiguous, to write to; may be the residual itself.

    Raises:
        ValueError: types, shapes or layouts differ from the above.
    """
    depth, columns = q_MK.shape[-1], len(weight.q_NK)
    check_weight(weight, depth)
    _check_rows(q_MK, scale_M)
    out = epilogue.output(q_MK, columns, out)
    if out.numel():
        q = q_MK.reshape(-1, depth)
        out_MN = out.view(-1, columns)
        if config is None and serves(q, weight, epilogue):
            int8_resident(q, scale_M, weight, epilogue, out_MN)
        else:
            tile = config or tile_for(len(q), columns, depth, epilogue)
            _launch(q, scale_M, weight, epilogue, tile, out_MN)
    return out


def exact_sums(q_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """(..., N) the sums of products, exact: in int32, or where that is not to be had, float64."""
    # Of depth 1, the product of torch 2.13 is whatever was in memory.
    fits = q_MK.is_cpu and q_MK.numel() and len(weight_NK) and q_MK.shape[-1] > 1
    if fits and _int_mm_is_exact():
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


def _check_rows(q_MK: Tensor, scale_M: Tensor | float) -> None:
    if q_MK.dtype != torch.int8:
        raise ValueError(f"rows must be int8, not {q_MK.dtype}")
    if q_MK.shape[-1] and q_MK.stride(-1) != 1:
        raise ValueError("rows must be contiguous in K")
    if isinstance(scale_M, Tensor):
        if scale_M.shape != q_MK.shape[:-1] or scale_M.dtype != torch.float32:
            raise ValueError(f"a scale a row is {tuple(q_MK.shape[:-1])} and float32")
        if not scale_M.is_contiguous():
            raise ValueError("scales must be contiguous")


def _launch(
    q_MK: Tensor,
    scale_M: Tensor | float,
    weight: Int8Weight,
    epilogue: Epilogue,
    tile: Tile,
    out_MN: Tensor,
) -> None:
    (rows, depth), columns = q_MK.shape, len(weight.q_NK)
    tile = loadable(tile, q_MK, weight.q_NK)
    tma_store = tile.tma_store and aligned(out_MN)
    tiles = programs(tile, rows, columns)
    each = isinstance(scale_M, Tensor)
    _int8_matmul_kernel[(min(tile.resident or tiles, tiles),)](
        operand(q_MK, tile.m, tile),
        operand(weight.q_NK, tile.n, tile),
        scale_M if each else None,
        0.0 if each else scale_M,
        weight.scale_N,
        TensorDescriptor.from_tensor(out_MN, [tile.m, tile.n]) if tma_store else out_MN,
        rows,
        columns,
        q_MK.stride(0),
        DIM=depth,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=tile.k,
        GROUP=tile.group,
        TMA=tile.tma,
        TMA_STORE=tma_store,
        RESIDENT=tile.resident > 0,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **epilogue.options(out_MN, tile),
        **launch_options(q_MK),
    )


@triton.jit  # type: ignore[untyped-decorator]
def _int8_matmul_kernel(  # type: ignore[no-untyped-def]
    q_ref,
    weight_ref,
    scale_ptr,
    given_scale,
    weight_scale_ptr,
    out_ref,
    rows,
    columns,
    q_stride,
    residual_ptr,
    period,
    out_inverse,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    ADD: tl.constexpr,
    REPEATED: tl.constexpr,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    GELU: tl.constexpr,
    FAST: tl.constexpr,
    INT8: tl.constexpr,
    TMA: tl.constexpr,
    TMA_STORE: tl.constexpr,
    RESIDENT: tl.constexpr,
    PDL: tl.constexpr,
):
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_n = tl.cdiv(columns, BLOCK_N)
    wait_for_inputs(PDL)
    if RESIDENT:
        # Flattened, the loads of a tile begin before the last one is finished.
        for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
            first_row, first_column = nth_tile_origin(
                tile, tiles_m, tiles_n, BLOCK_M, BLOCK_N, GROUP
            )
            _make_tile(
                first_row,
                first_column,
                q_ref,
                weight_ref,
                scale_ptr,
                given_scale,
                weight_scale_ptr,
                out_ref,
                rows,
                columns,
                q_stride,
                residual_ptr,
                period,
                out_inverse,
                cos_ptr,
                sin_ptr,
                n_phases,
                turned_columns,
                DIM,
                BLOCK_M,
                BLOCK_N,
                BLOCK_K,
                GROUP,
                ADD,
                REPEATED,
                HEAD,
                PHASE_ROWS,
                SHARE,
                PERIOD,
                GELU,
                FAST,
                INT8,
                TMA,
                TMA_STORE,
                RESIDENT,
            )
    else:
        first_row, first_column = nth_tile_origin(
            tl.program_id(0), tiles_m, tiles_n, BLOCK_M, BLOCK_N, GROUP
        )
        _make_tile(
            first_row,
            first_column,
            q_ref,
            weight_ref,
            scale_ptr,
            given_scale,
            weight_scale_ptr,
            out_ref,
            rows,
            columns,
            q_stride,
            residual_ptr,
            period,
            out_inverse,
            cos_ptr,
            sin_ptr,
            n_phases,
            turned_columns,
            DIM,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            GROUP,
            ADD,
            REPEATED,
            HEAD,
            PHASE_ROWS,
            SHARE,
            PERIOD,
            GELU,
            FAST,
            INT8,
            TMA,
            TMA_STORE,
            RESIDENT,
        )


@triton.jit  # type: ignore[untyped-decorator]
def _make_tile(  # type: ignore[no-untyped-def]
    first_row,
    first_column,
    q_ref,
    weight_ref,
    scale_ptr,
    given_scale,
    weight_scale_ptr,
    out_ref,
    rows,
    columns,
    q_stride,
    residual_ptr,
    period,
    out_inverse,
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    ADD: tl.constexpr,
    REPEATED: tl.constexpr,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    GELU: tl.constexpr,
    FAST: tl.constexpr,
    INT8: tl.constexpr,
    TMA: tl.constexpr,
    TMA_STORE: tl.constexpr,
    RESIDENT: tl.constexpr,
):
    if not RESIDENT:
        # They arrive behind the product.
        scale = load_scales(scale_ptr, given_scale, first_row, rows, BLOCK_M)
        weight_scale = load_scales(weight_scale_ptr, 0.0, first_column, columns, BLOCK_N)
        residual, cos, sin = load_operands(
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
            ADD,
            REPEATED,
            HEAD,
            PHASE_ROWS,
            SHARE,
            PERIOD,
            BLOCK_M,
            BLOCK_N,
        )
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for k in range(0, DIM, BLOCK_K):
        if TMA:
            q = q_ref.load([first_row, k])
            weight = weight_ref.load([first_column, k])
        else:
            q_rows = row_pointers(q_ref, first_row, rows, q_stride, BLOCK_M)
            weight_rows = row_pointers(weight_ref, first_column, columns, DIM, BLOCK_N)
            q = load_columns(q_rows, k, DIM, BLOCK_K)
            weight = load_columns(weight_rows, k, DIM, BLOCK_K)
        total = tl.dot(q, weight.T, total, out_dtype=tl.int32)
    if RESIDENT:
        scale = load_scales(scale_ptr, given_scale, first_row, rows, BLOCK_M)
        weight_scale = load_scales(weight_scale_ptr, 0.0, first_column, columns, BLOCK_N)
        residual, cos, sin = load_operands(
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
            ADD,
            REPEATED,
            HEAD,
            PHASE_ROWS,
            SHARE,
            PERIOD,
            BLOCK_M,
            BLOCK_N,
        )
    y = finish_tile(
        total,
        scale,
        weight_scale,
        residual,
        cos,
        sin,
        out_inverse,
        ADD,
        HEAD,
        GELU,
        FAST,
        INT8,
    )
    if TMA_STORE:
        out_ref.store([first_row, first_column], y.to(out_ref.dtype))
    else:
        store_tile(out_ref, y, first_row, first_column, rows, columns)
