"""The fused tokenizer against its reference, in Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import token_embedding as op

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _arguments(shape: tuple[int, ...], dim: int, dtype: torch.dtype):
    torch.manual_seed(0)
    rows = (30, 4, 9)
    index = [torch.randint(n, shape, device=DEVICE) for n in rows]
    tables = tuple(torch.randn(n, dim, device=DEVICE, dtype=dtype) for n in rows)
    return (*index, tables, torch.randn(dim, device=DEVICE, dtype=dtype), 1e-6)


@pytest.mark.parametrize("shape", [(1,), (37,), (2, 3, 5), (0,)])
@pytest.mark.parametrize("dim", [32, 96])
@torch.no_grad()
def test_equals_the_reference_in_float64(shape: tuple[int, ...], dim: int) -> None:
    *index, tables, gamma, eps = _arguments(shape, dim, torch.float32)
    exact = op.token_embedding_reference(
        *index, tuple(t.double() for t in tables), gamma.double(), eps
    )
    fused = op.token_embedding_triton(*index, tables, gamma, eps)
    torch.testing.assert_close(fused.double(), exact, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_bfloat16_is_within_its_rounding() -> None:
    *index, tables, gamma, eps = _arguments((50,), 64, torch.bfloat16)
    exact = op.token_embedding_reference(
        *index, tuple(t.double() for t in tables), gamma.double(), eps
    )
    fused = op.token_embedding_triton(*index, tables, gamma, eps)
    # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
    torch.testing.assert_close(fused.double(), exact, rtol=2**-7, atol=1e-5)


def test_gradients_take_the_reference() -> None:
    *index, tables, gamma, eps = _arguments((7,), 32, torch.float32)
    gamma.requires_grad_()
    op.token_embedding(*index, tables, gamma, eps).sum().backward()
    assert gamma.grad is not None
    assert gamma.grad.isfinite().all()
