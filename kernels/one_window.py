"""Attention where all steps lie within one window, on Hopper.

Formula: that of window_attention with a start. There are two kernels: split_window's for few
windows, and whole_window's for so many that their heads fill the GPU; both read queries, keys and
values where they are, and have them on their way at once. Their groups of warps are beyond Triton's
language; they are in Gluon, its lower level.

Shapes: B samples, S steps, L queries and keys a step, H heads of width K, R = S L rows a sample.
"""

import torch
from torch import Tensor

from kernels.gluon_tile import blocks, on_hopper
from kernels.matmul_tile import PROCESSORS, aligned
from kernels.split_window import split_window_kernel
from kernels.whole_window import whole_window_kernel

_ROWS = 64
# So many blocks of rows that there is work for both groups, and two programs find room.
_BLOCKS = (2, 3, 4)
_WIDTHS = (32, 64)
# The tensor cores' least depth of a product: the most keys of a start.
_START = 16
# With more blocks than the first, but fewer heads than the second, window_attention's own kernel is
# sooner done.
MOST_BLOCKS, LEAST_HEADS = 2 * PROCESSORS, 192
# A thread's registers where two programs of two groups share a multiprocessor's.
_REGISTERS = 128


def fits(shape: tuple[int, ...], window: int) -> bool:
    """Whether the kernel attends queries and keys of this shape (B, S, L, H, K), and soonest.

    Args:
        shape: of queries, keys and values alike.
        window: steps that a query sees, its own included.
    """
    samples, steps, rows, heads, width = shape
    if window < steps or rows > _START or width not in _WIDTHS:
        return False
    # A step is in one block.
    n_blocks, rest = divmod(steps * rows, _ROWS)
    if _ROWS % rows or rest or n_blocks not in _BLOCKS:
        return False
    return samples * heads * n_blocks <= MOST_BLOCKS or samples * heads >= LEAST_HEADS


def serves(q_BSLHK: Tensor, k_BSLHK: Tensor, v_BSLHK: Tensor, window: int) -> bool:
    """Whether the kernel `fits`, on this device and these types and places in memory."""
    inputs = q_BSLHK, k_BSLHK, v_BSLHK
    if not on_hopper(q_BSLHK) or not fits(tuple(k_BSLHK.shape), window):
        return False
    alike = all(x.shape == k_BSLHK.shape and x.dtype == torch.bfloat16 for x in inputs)
    return alike and all(_is_matrix(x) and aligned(_rows(x)) for x in inputs)


def one_window(
    q_BSLHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    start: tuple[Tensor, Tensor],
    window: int,
    out_scale: float | None,
    exponent: float,
    out: Tensor,
) -> None:
    """The attention, where `serves` says so.

    Args:
        q_BSLHK: bfloat16 queries.
        k_BSLHK: keys of every step.
        v_BSLHK: values of every step.
        start: contiguous keys and values (L, H, K) of the step before the first. No kernel that is
            still running may be writing them.
        window: steps that a query sees, its own included.
        out_scale: the scale of an int8 result, or None.
        exponent: makes an exponent of two of a dot product.
        out: (B, S, L, H, K) contiguous, bfloat16 or int8, to write to.
    """
    samples, steps, rows, heads, width = q_BSLHK.shape
    programs, n_blocks = samples * heads, steps * rows // _ROWS
    kernel = whole_window_kernel
    if programs * n_blocks <= MOST_BLOCKS:
        kernel, programs = split_window_kernel, programs * n_blocks
    kernel[(programs,)](
        *(blocks(_rows(x), _ROWS, width) for x in (q_BSLHK, k_BSLHK, v_BSLHK)),
        *(blocks(x.flatten(1), _START, width) for x in start),
        blocks(_rows(out), _ROWS, width),
        exponent,
        0.0 if out_scale is None else 1.0 / out_scale,
        WINDOW=window,
        L=rows,
        H=heads,
        BLOCKS=n_blocks,
        REGISTERS=_REGISTERS,
        num_warps=4,
        maxnreg=_REGISTERS,
        launch_pdl=True,
    )


def _is_matrix(x_BSLHK: Tensor) -> bool:
    """Whether all rows are evenly spaced, each with its heads side by side."""
    _, steps, rows, _, width = x_BSLHK.shape
    row = x_BSLHK.stride(2)
    return x_BSLHK.stride() == (steps * rows * row, rows * row, row, width, 1)


def _rows(x_BSLHK: Tensor) -> Tensor:
    """(B R, H K) in place."""
    return x_BSLHK.flatten(3).flatten(0, 2)
