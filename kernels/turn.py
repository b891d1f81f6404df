"""Pairs of the leading columns of a product's rows, turned by the rows' phases.

Formula: that of kernels.rotary, where the columns are heads side by side.

Shapes: M rows, N columns, T phases, K width of a head.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.matmul_tile import Tile
from kernels.rotary import rotate


class Turn(NamedTuple):
    """How the leading columns of every row turn: pairs (2i, 2i + 1) of a head by their phases.

    Row m takes phase (m // rows) % T.

    Attributes:
        cos_TK: (T, K / 2) float32 contiguous, from kernels.rotary.
        sin_TK: likewise.
        rows: rows that share a phase.
        columns: how many columns turn, a multiple of the width K of a head.
    """

    cos_TK: Tensor
    sin_TK: Tensor
    rows: int
    columns: int


def turned_reference(y_MN: Tensor, turn: Turn) -> Tensor:
    """Plain PyTorch: (..., N) with the leading columns turned."""
    y = y_MN.reshape(-1, y_MN.shape[-1])
    heads = y[:, : turn.columns].unflatten(-1, (-1, 2 * turn.cos_TK.shape[1]))
    times = -(-len(y) // (len(turn.cos_TK) * turn.rows))
    cos, sin = (
        phases.repeat_interleave(turn.rows, 0).repeat(times, 1)[: len(y)]
        for phases in (turn.cos_TK, turn.sin_TK)
    )
    turned = rotate(heads, (cos, sin)).flatten(-2)
    return torch.cat((turned, y[:, turn.columns :]), -1).view(y_MN.shape)


def check_turn(turn: Turn, columns: int, activation: str | None) -> None:
    """Whether a layer of so many columns and this activation can turn so, else ValueError."""
    if activation is not None:
        raise ValueError("columns are turned or activated, not both")
    cos, sin = turn.cos_TK, turn.sin_TK
    for phases in (cos, sin):
        if phases.dtype != torch.float32 or not phases.is_contiguous():
            raise ValueError("phases must be float32 and contiguous")
    if cos.ndim != 2 or not cos.numel() or sin.shape != cos.shape or turn.rows < 1:
        raise ValueError(f"phases are {tuple(cos.shape)}, of {turn.rows} rows each")
    if turn.columns % (2 * cos.shape[1]) or turn.columns > columns:
        raise ValueError(f"{turn.columns} of {columns} columns in heads of {2 * cos.shape[1]}")


def turn_arguments(turn: Turn | None) -> dict[str, Any]:
    """A turn as kernels take it, by the names of their arguments; HEAD is 0 where there is none."""
    if turn is None:
        empty = {"cos_ptr": None, "sin_ptr": None, "n_phases": 0, "turned_columns": 0}
        return {**empty, "HEAD": 0, "PHASE_ROWS": 1}
    return {
        "cos_ptr": turn.cos_TK,
        "sin_ptr": turn.sin_TK,
        "n_phases": len(turn.cos_TK),
        "turned_columns": turn.columns,
        "HEAD": 2 * turn.cos_TK.shape[1],
        "PHASE_ROWS": turn.rows,
    }


def turn_options(turn: Turn | None, tile: Tile) -> dict[str, Any]:
    """The arguments for a turn of kernels that `load_phases` for a tile and `turn_pairs` of it."""
    arguments = turn_arguments(turn)
    if turn is None:
        return {**arguments, "SHARE": 1, "PERIOD": tile.n}
    head = arguments["HEAD"]
    # Where a tile turns as a whole, its heads share their phases.
    repeats = tile.n % head == 0 and turn.columns % tile.n == 0 and head & (head - 1) == 0
    return {
        **arguments,
        # The largest power of two in both: so many rows, from any tile's first, share a phase.
        "SHARE": min(turn.rows & -turn.rows, tile.m),
        "PERIOD": head if repeats else tile.n,
    }


@triton.jit  # type: ignore[untyped-decorator]
def load_phases(  # type: ignore[no-untyped-def]
    cos_ptr,
    sin_ptr,
    n_phases,
    turned_columns,
    first_row,
    first_column,
    HEAD: tl.constexpr,
    PHASE_ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    PERIOD: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Cos and sin of a tile, (BLOCK_M / SHARE, 1, 1, PERIOD / 2).

    SHARE rows have the same phases, and those repeat every PERIOD columns.
    """
    row = first_row + SHARE * tl.arange(0, BLOCK_M // SHARE)
    pair = first_column // 2 + tl.arange(0, PERIOD // 2)[None, :]
    place = (row // PHASE_ROWS % n_phases)[:, None] * (HEAD // 2) + pair % (HEAD // 2)
    turns = 2 * pair < turned_columns
    cos = tl.load(cos_ptr + place, turns, 1.0)
    sin = tl.load(sin_ptr + place, turns, 0.0)
    return cos[:, None, None, :], sin[:, None, None, :]


@triton.jit
def turn_pairs(y, cos, sin):  # type: ignore[no-untyped-def]
    """The tile with its pairs turned.

    A pair is in one thread's registers. As a sum over both of its columns, with phases spread out
    likewise, it stays there: the compiler moves the phases to the product's layout, where turning
    even and odd columns apart, it would move the product to the phases' layout.
    """
    M: tl.constexpr = y.shape[0]
    N: tl.constexpr = y.shape[1]
    GROUPS: tl.constexpr = cos.shape[0]
    PAIRS: tl.constexpr = cos.shape[3]
    shape: tl.constexpr = (GROUPS, M // GROUPS, N // (2 * PAIRS), PAIRS, 2)
    even, odd = tl.split(tl.reshape(y, shape))
    other = tl.reshape(tl.join(odd, even), (M, N))
    cos = tl.reshape(tl.broadcast_to(cos[:, :, :, :, None], shape), (M, N))
    sin = tl.reshape(tl.broadcast_to(tl.join(-sin, sin), shape), (M, N))
    return y * cos + other * sin
