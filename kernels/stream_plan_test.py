"""The stream's plan against exact arithmetic, in Triton's interpreter where there is no GPU."""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import stream_plan as op
from kernels.dispatch import forced
from kernels.rotary import rotary_periods, rotary_phases

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEAD_DIM, MIN_PERIOD, MAX_PERIOD = 24, 4.0, 512.0
PERIODS = rotary_periods(
    HEAD_DIM, min_period=MIN_PERIOD, max_period=MAX_PERIOD, device=torch.device(DEVICE)
)
FORMS = {"torch": op.plan_step_reference, "triton": op.plan_step_triton}


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number, or no page."""

    def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        fill: Any = math.nan if dtype.is_floating_point else -77
        return torch.full(shape, fill, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "empty", poisoned)


def _tensor(*values: int) -> Tensor:
    return torch.tensor(values, device=DEVICE)


def _plan(form: str, slot: Tensor, following: Tensor, first: Tensor, **options: Any) -> op.StepPlan:
    arguments = {"bins_per_step": 4, "window": 5, "readout": 3, "period_K2": PERIODS}
    query_bin = options.pop("query_bin", _tensor(0, 3, 1))
    return FORMS[form](slot, following, first, query_bin, **{**arguments, **options})


def _seen(slot: int, step: int, first: int, depth: int) -> list[int]:
    """The pages one by one: that of every step of the window which the stream has had."""
    pages = [-1] * depth
    for seen in range(max(first, step - depth + 1), step + 1):
        pages[seen % depth] = slot * depth + seen % depth
    return pages


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depths", [(5, 3), (8, 1), (32, 4)])
def test_pages_are_those_of_the_steps_that_were(form: str, depths: tuple[int, int]) -> None:
    starts = [(-1, 0), (-1, 3), (-7, 2), (0, 0), (10**7, 1), (10**7, 40), (-100, 90)]
    slots = [2, 0, 5, 1, 3, 7, 4]
    following, first = torch.full((8,), -55, device=DEVICE), torch.full((8,), -55, device=DEVICE)
    slot = _tensor(*slots)
    first[slot] = _tensor(*(f for f, _ in starts))
    following[slot] = _tensor(*(f + done for f, done in starts))
    plan = _plan(form, slot, following, first, window=depths[0], readout=depths[1])
    for i, (p, (f, done)) in enumerate(zip(slots, starts, strict=True)):
        step = f + done
        assert (int(plan.step_B[i]), int(plan.first_B[i])) == (step, f)
        assert int(following[p]) == step + 1
        owns, sees = (
            (plan.own_B, plan.readout_own_B),
            (plan.seen_BW, plan.readout_seen_BR),
        )
        for depth, own, seen in zip(depths, owns, sees, strict=True):
            assert int(own[i]) == p * depth + step % depth
            assert seen[i].tolist() == _seen(p, step, f, depth)
    # The slot that no stream of the batch is in.
    assert int(following[6]) == -55


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [-1, 0, 1, 7, 12_345, 10**7, 10**7 + 1])
def test_phases_are_those_of_the_bins(form: str, step: int) -> None:
    query_bin = torch.arange(4, device=DEVICE, dtype=torch.int32)
    zero = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    plan = _plan(form, zero, zero + step, zero - 1, query_bin=query_bin)
    # In whole numbers a turn's fraction is exact.
    for found_cos, found_sin, time_bin in (
        (plan.cos_BK2[0], plan.sin_BK2[0], step * 4),
        *((plan.query_cos_BQK2[0, q], plan.query_sin_BQK2[0, q], step * 4 + q) for q in range(4)),
    ):
        expected = rotary_phases(
            _tensor(time_bin)[0], HEAD_DIM, min_period=MIN_PERIOD, max_period=MAX_PERIOD
        )
        for found, wanted in zip((found_cos, found_sin), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        turn = math.fmod(time_bin, MIN_PERIOD) / MIN_PERIOD * 2 * math.pi
        assert float(found_cos[0]) == pytest.approx(math.cos(turn), abs=1e-6)
        assert float(found_sin[0]) == pytest.approx(math.sin(turn), abs=1e-6)


def test_phases_of_every_part_of_a_turn() -> None:
    slot = torch.arange(64, device=DEVICE)
    periods = torch.tensor([64.0, 4.0, 37.3], dtype=torch.float64, device=DEVICE)
    plan = _plan("triton", slot, slot - 32, slot * 0 - 50, bins_per_step=1, period_K2=periods)
    angle = 2 * math.pi * (slot - 32).double()[:, None] / periods
    torch.testing.assert_close(plan.cos_BK2.double(), angle.cos(), rtol=0, atol=3e-7)
    torch.testing.assert_close(plan.sin_BK2.double(), angle.sin(), rtol=0, atol=3e-7)


@pytest.mark.parametrize("index", [torch.int64, torch.int32])
@pytest.mark.parametrize(("queries", "warps"), [(1, 1), (5, 4)])
def test_both_forms_give_one_plan(index: torch.dtype, queries: int, warps: int) -> None:
    slot = _tensor(4, 0, 3).to(index)
    first = _tensor(-1, 9, 9, 0, 2)
    following = first + _tensor(0, 0, 0, 100, 3)
    query_bin = torch.arange(queries, device=DEVICE)
    arguments: dict[str, Any] = {"window": 6, "readout": 4, "query_bin": query_bin}
    wanted = _plan("torch", slot, following.clone(), first, **arguments)
    found = _plan("triton", slot, following, first, **arguments, warps=warps)
    assert following.tolist() == [0, 9, 9, 101, 6]
    for name, one, other in zip(op.StepPlan._fields, found, wanted, strict=True):
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.is_contiguous(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_no_streams_and_no_queries(form: str) -> None:
    first = _tensor(1, 2)
    plan = _plan(form, _tensor()[:0].long(), first.clone(), first)
    assert plan.seen_BW.shape == (0, 5)
    plan = _plan(form, _tensor(1), first.clone(), first, query_bin=_tensor()[:0].long())
    assert plan.query_cos_BQK2.shape == (1, 0, HEAD_DIM // 2)
    assert plan.step_B.tolist() == [2]


@pytest.mark.parametrize("form", FORMS)
def test_pages_beyond_an_int32_are_refused(form: str) -> None:
    steps = torch.zeros(1, dtype=torch.int64, device=DEVICE).expand(2**20)
    with pytest.raises(ValueError, match="pages"):
        _plan(form, _tensor(0), steps, steps, window=2**11)


def test_scattered_steps_are_refused() -> None:
    steps = torch.zeros(4, 2, dtype=torch.int64, device=DEVICE)[:, 0]
    with pytest.raises(ValueError, match="contiguous"):
        _plan("triton", _tensor(0), steps, steps)


@torch.no_grad()
def test_a_forced_form_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "plan_step_triton", lambda *_, **__: "kernel")
    monkeypatch.setattr(op, "plan_step_reference", lambda *_, **__: "reference")
    arguments: dict[str, Any] = {
        "bins_per_step": 4,
        "window": 5,
        "readout": 3,
        "period_K2": PERIODS,
    }
    steps = _tensor(0)
    for form, expected in (("triton", "kernel"), ("torch", "reference")):
        with forced(form):  # type: ignore[arg-type]
            plan: Any = op.plan_step(steps, steps, steps, steps, **arguments)
        assert plan == expected
