"""The product whose rows stay: on a GPU against exact sums, without one compiled for Hopper."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import int8_resident as op
from kernels.gluon_compilation_for_tests import check_compiles
from kernels.hopper_for_tests import DEVICE, compiles, make_turn, needs_hopper
from kernels.int8_epilogue import Epilogue
from kernels.int8_weight import Int8Weight
from kernels.turn import turned_reference


def _epilogues() -> Iterator[Epilogue]:
    plain = Epilogue(torch.bfloat16)
    yield plain
    yield replace(plain, out_scale=0.05)
    yield replace(plain, turn=make_turn(256))
    yield replace(plain, turn=make_turn(128, head=32))
    yield replace(plain, activation="gelu")
    yield replace(plain, activation="gelu", out_scale=0.05)


def _product(rows: int, depth: int, columns: int) -> tuple[Tensor, Tensor, Int8Weight]:
    torch.manual_seed(1)
    q = torch.randint(-127, 128, (rows, depth), device=DEVICE, dtype=torch.int8)
    wq = torch.randint(-127, 128, (columns, depth), device=DEVICE, dtype=torch.int8)
    scale = (0.5 + torch.rand(rows, device=DEVICE)) / 127
    return q, scale, Int8Weight(wq, torch.rand(columns, device=DEVICE) / 127 / depth**0.5)


def _poisoned(rows: int, columns: int, epilogue: Epilogue) -> Tensor:
    dtype, value = (torch.bfloat16, math.nan) if epilogue.out_scale is None else (torch.int8, -128)
    return torch.full((rows, columns), value, device=DEVICE, dtype=dtype)


@needs_hopper
@pytest.mark.parametrize("epilogue", list(_epilogues()))
@pytest.mark.parametrize(
    ("depth", "columns", "given"),
    [(512, 1536, False), (512, 1536, True), (256, 768, False), (768, 384, False)],
)
@pytest.mark.parametrize("rows", [1, 64, 129, 4096, 8448, 20_000])
def test_equals_the_exact_sums_and_what_follows(
    epilogue: Epilogue, depth: int, columns: int, given: bool, rows: int
) -> None:
    q, scale_M, weight = _product(rows, depth, columns)
    scale: Tensor | float = 1 / 127 if given else scale_M
    out = _poisoned(rows, columns, epilogue)
    op.int8_resident(q, scale, weight, epilogue, out)
    exact = q.double() @ weight.q_NK.double().T * weight.scale_N
    exact *= scale if given else scale_M[:, None]
    if epilogue.activation:
        exact = F.gelu(exact, approximate="tanh")
    if epilogue.turn is not None:
        exact = turned_reference(exact, epilogue.turn)
    if epilogue.out_scale is None:
        torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=2e-3)
    else:
        steps = (exact / epilogue.out_scale).clamp(-127, 127)
        off = (out.double() - steps).abs() - 0.5
        # A part of a step that grows with the value, as float16's rounding does.
        assert (off <= 2**-5 + 0.3 / 127 * steps.abs()).all()


@compiles
@pytest.mark.parametrize("epilogue", list(_epilogues()))
@pytest.mark.parametrize("depth", [128, 512, 768])
def test_it_compiles_for_hopper(epilogue: Epilogue, depth: int) -> None:
    q, scale, weight = _product(300, depth, 256)
    out = _poisoned(300, 256, epilogue)
    check_compiles(lambda: op.int8_resident(q, scale, weight, epilogue, out))


def test_what_it_fits() -> None:
    plain = Epilogue(torch.bfloat16)

    def fits(epilogue: Epilogue = plain, *, rows: int = 8448, n: int = 512, k: int = 512) -> bool:
        return op.fits(rows, n, k, epilogue)

    assert all(fits(epilogue) for epilogue in _epilogues())
    assert fits(k=768)
    assert not fits(rows=op.LEAST_ROWS - 1)
    assert fits(rows=2112, n=1536)
    assert not fits(rows=2112, n=512)
    assert not fits(k=1024)
    assert not fits(k=500)
    assert not fits(n=500)
    assert not fits(Epilogue(torch.float32))
    assert not fits(Epilogue(torch.float32, turn=make_turn(256)))
    assert fits(Epilogue(torch.float32, out_scale=0.1))
    assert not fits(replace(plain, residual=torch.zeros(512)))
    assert not fits(replace(plain, turn=make_turn(192)))
    assert not fits(replace(plain, turn=make_turn(384, head=192)), n=384)
