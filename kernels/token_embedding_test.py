"""The fused tokenizer against its reference, in Triton's interpreter where there is no GPU."""

import math
import os
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import token_embedding as op
from kernels.dispatch import forced

ROWS = (30, 4, 9)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, math.nan, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


class Arguments(NamedTuple):
    """The operator's arguments, in its order."""

    unit: Tensor
    phase: Tensor
    value: Tensor
    tables: tuple[Tensor, Tensor, Tensor]
    gamma: Tensor
    eps: float

    def exact(self) -> Tensor:
        """The reference's answer in float64."""
        unit, phase, value = (table.double() for table in self.tables)
        wide = self._replace(tables=(unit, phase, value), gamma=self.gamma.double())
        return op.token_embedding_reference(*wide)


def _arguments(
    shape: tuple[int, ...], dim: int, dtype: torch.dtype, index: torch.dtype = torch.int64
) -> Arguments:
    torch.manual_seed(0)
    unit, phase, value = (torch.randint(n, shape, device=DEVICE, dtype=index) for n in ROWS)
    u, p, c = (torch.randn(n, dim, device=DEVICE, dtype=dtype) for n in ROWS)
    gamma = torch.randn(dim, device=DEVICE, dtype=dtype)
    return Arguments(unit, phase, value, (u, p, c), gamma, 1e-6)


@pytest.mark.parametrize("shape", [(1,), (37,), (2, 3, 5), (0,)])
@pytest.mark.parametrize("dim", [32, 96, 768])
@torch.no_grad()
def test_equals_the_reference_in_float64(shape: tuple[int, ...], dim: int) -> None:
    arguments = _arguments(shape, dim, torch.float32)
    fused = op.token_embedding_triton(*arguments)
    torch.testing.assert_close(fused.double(), arguments.exact(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_bfloat16_is_within_its_rounding() -> None:
    arguments = _arguments((50,), 64, torch.bfloat16)
    fused = op.token_embedding_triton(*arguments)
    # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
    torch.testing.assert_close(fused.double(), arguments.exact(), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("config", [(1, 1), (2, 4), (16, 1)])
@torch.no_grad()
def test_every_cut_gives_the_same_tokens(config: tuple[int, int]) -> None:
    arguments = _arguments((37,), 96, torch.float32, torch.int32)
    fused = op.token_embedding_triton(*arguments, config=op.EmbeddingConfig(*config))
    torch.testing.assert_close(fused.double(), arguments.exact(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_columns_that_are_views() -> None:
    arguments = _arguments((9, 5), 32, torch.float32)
    across = arguments._replace(
        unit=arguments.unit.T, phase=arguments.phase.T, value=arguments.value.T
    )
    fused = op.token_embedding_triton(*across)
    torch.testing.assert_close(fused.double(), across.exact(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_forced_form_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = _arguments((3,), 32, torch.float32)
    monkeypatch.setattr(op, "token_embedding_triton", lambda *_: "kernel")
    monkeypatch.setattr(op, "token_embedding_reference", lambda *_: "reference")
    with forced("triton"):
        assert op.token_embedding(*arguments) == "kernel"
    with forced("torch"):
        assert op.token_embedding(*arguments) == "reference"


def test_gradients_take_the_reference() -> None:
    arguments = _arguments((7,), 32, torch.float32)
    arguments.gamma.requires_grad_()
    op.token_embedding(*arguments).sum().backward()
    assert arguments.gamma.grad is not None
    assert arguments.gamma.grad.isfinite().all()
