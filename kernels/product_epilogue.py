"""What follows the sums of a product in Gluon: of norm_linear, of linear_add, and of 8-bit rows.

The kernels in Gluon differ in how they bring operands and share out tiles; what they then do to a
tile in registers is here, once.

Shapes: M rows, N outputs, P parts of a row.
"""

from dataclasses import dataclass

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from kernels.turn import Turn


@dataclass(frozen=True)
class Normed:
    """What follows in norm_linear.

    Attributes:
        squares_MP: (M, P) float32 contiguous, sums of squares of the parts of every row.
        eps: added to the mean square.
        gelu: whether GELU follows.
        turn: how the leading columns turn, or None.
    """

    squares_MP: Tensor
    eps: float
    gelu: bool = False
    turn: Turn | None = None


@dataclass(frozen=True)
class Added:
    """What follows in linear_add.

    Attributes:
        residual: in blocks of contiguous rows.
        rows: rows of a block.
        step: numbers from where one block begins to where the next does, 0 if it comes again.
        squares_MP: (M, P) float32 contiguous, to write the results' sums of squares to.
    """

    residual: Tensor
    rows: int
    step: int
    squares_MP: Tensor


@gluon.jit  # type: ignore[untyped-decorator]
def sum_of_parts(squares_ptr, row, PARTS: gl.constexpr):  # type: ignore[no-untyped-def]
    """The sums of all parts of the given rows, which a thread loads together."""
    total = gl.load(squares_ptr + row * PARTS)
    for part in gl.static_range(1, PARTS):
        total += gl.load(squares_ptr + row * PARTS + part)
    return total


@gluon.jit  # type: ignore[untyped-decorator]
def load_phases(  # type: ignore[no-untyped-def]
    row, column, turn, HEAD: gl.constexpr, PHASE_ROWS: gl.constexpr
):
    """Cosines and sines of rows and columns of a tile, in the layout of its pairs.

    (ROWS, HEAD / 2) for whole heads side by side, which have them in common, else (ROWS,
    COLUMNS / 2).
    """
    cos_ptr, sin_ptr, n_phases, _ = turn
    ROWS: gl.constexpr = row.shape[0]
    COLUMNS: gl.constexpr = column.shape[0]
    PERIOD: gl.constexpr = COLUMNS if COLUMNS % HEAD else HEAD
    phase = row // PHASE_ROWS % n_phases
    place = phase[:, None] * (HEAD // 2) + (column % HEAD // 2)[None, :]
    place, _ = place.reshape([ROWS, COLUMNS // PERIOD, PERIOD // 2, 2]).split()
    # Alike for all heads.
    place = gl.max(place, 1)
    return gl.load(cos_ptr + place), gl.load(sin_ptr + place)


@gluon.jit
def turned(y, cos, sin, turns):  # type: ignore[no-untyped-def]
    """A tile with its pairs of columns turned by what `load_phases` gave, if it turns."""
    ROWS: gl.constexpr = y.shape[0]
    COLUMNS: gl.constexpr = y.shape[1]
    PAIRS: gl.constexpr = cos.shape[1]
    if turns:
        even, odd = y.reshape([ROWS, COLUMNS // (2 * PAIRS), PAIRS, 2]).split()
        c = cos.expand_dims(1)
        s = sin.expand_dims(1)
        pairs = gl.join(even * c - odd * s, odd * c + even * s)
        y = gl.convert_layout(pairs.reshape([ROWS, COLUMNS]), y.type.layout)
    return y
