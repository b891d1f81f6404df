"""What the tests of the kernels in Gluon share: on Hopper they run, elsewhere they are compiled."""

import math

import pytest
import torch
from torch import Tensor

from kernels.turn import Turn

HAS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
DEVICE = "cuda" if HAS_HOPPER else "cpu"
needs_hopper = pytest.mark.skipif(not HAS_HOPPER, reason="the kernel is Hopper's")
compiles = pytest.mark.skipif(HAS_HOPPER, reason="there is a GPU to run it on")


def matrices(rows: int, depth: int, columns: int) -> tuple[Tensor, Tensor]:
    """Rows (rows, depth) and a weight (columns, depth) whose products are of order one."""
    torch.manual_seed(rows)
    x = torch.randn(rows, depth, device=DEVICE).bfloat16()
    return x, (torch.randn(columns, depth, device=DEVICE) / depth**0.5).bfloat16()


def squares_of(x: Tensor, parts: int) -> Tensor:
    """(M, parts) float32 sums of squares of the parts of rows."""
    squares: Tensor = x.float().square().unflatten(1, (parts, -1)).sum(-1)
    return squares.contiguous()


def make_turn(columns: int, head: int = 64) -> Turn:
    """A turn of 33 steps of 8 rows."""
    torch.manual_seed(3)
    angle = 6.28 * torch.rand(33, head // 2, device=DEVICE)
    return Turn(angle.cos(), angle.sin(), 8, columns)


def poisoned(rows: int, columns: int) -> Tensor:
    """What a kernel forgets to write is not a number."""
    return torch.full((rows, columns), math.nan, device=DEVICE, dtype=torch.bfloat16)
