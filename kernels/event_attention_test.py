"""Event attention against a loop over single events in float64; the kernels against that form.

Kernels run in Triton's interpreter where there is no GPU.
"""

import math
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import event_attention as op
from kernels.dispatch import forced
from kernels.event_attention import (
    EventColumns,
    EventTables,
    Weighting,
    event_sums,
    event_tables,
    normalise,
    sum_lags,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

HEADS, LATENTS, WIDTH = 2, 3, 4
UNITS, PLACES = 4, (2, 3)
ROWS = UNITS * PLACES[0] * PLACES[1]


def _inputs(n_lags: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return (
        normal(n_lags, LATENTS, HEADS, WIDTH),
        normal(ROWS, HEADS, WIDTH),
        normal(ROWS, HEADS, WIDTH),
        torch.tensor([-1.0, 0.5], dtype=torch.float64),
    )


def _events(steps: int, events: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    mask = torch.rand(2, steps, events, generator=g) < 0.6
    mask[0, : steps // 2] = False
    return torch.randint(ROWS, (2, steps, events), generator=g), mask


def _fast(row: Tensor, mask: Tensor, tables: EventTables, weighting: Weighting) -> Tensor:
    return normalise(sum_lags(event_sums(row, mask, tables)), weighting)


def _slow(
    row: Tensor, mask: Tensor, inputs: tuple[Tensor, Tensor, Tensor, Tensor], weighting: Weighting
) -> Tensor:
    q, k, v, bias = inputs
    out = torch.zeros(*row.shape[:2], HEADS, LATENTS, WIDTH, dtype=torch.float64)
    for b, s, h, latent in torch.cartesian_prod(*(torch.arange(n) for n in out.shape[:4])).tolist():
        seen = [
            (j, int(row[b, s - j, e]))
            for j in range(min(len(q), s + 1))
            for e in range(row.shape[2])
            if mask[b, s - j, e]
        ]
        scores = [float(q[j, latent, h] @ k[r, h]) / 2 + float(bias[h]) for j, r in seen]
        if weighting == "sigmoid":
            weights = [1 / (1 + math.exp(-x)) for x in scores]
        else:
            total = sum(math.exp(x) for x in scores)
            weights = [math.exp(x) / total for x in scores]
        for w, (_, r) in zip(weights, seen, strict=True):
            out[b, s, h, latent] += w * v[r, h]
    return out


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("steps", "events", "n_lags"), [(1, 1, 1), (5, 3, 2), (4, 2, 9)])
def test_equals_the_sum_over_events(
    weighting: Weighting, steps: int, events: int, n_lags: int
) -> None:
    inputs = _inputs(n_lags)
    row, mask = _events(steps, events)
    fast = _fast(row, mask, event_tables(*inputs, weighting), weighting)
    torch.testing.assert_close(fast, _slow(row, mask, inputs, weighting))


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
def test_silence_is_zero_with_finite_gradients(weighting: Weighting) -> None:
    q, k, v, bias = _inputs(2)
    q.requires_grad_()
    row, mask = _events(4, 3)
    out = _fast(row, torch.zeros_like(mask), event_tables(q, k, v, bias, weighting), weighting)
    out.sum().backward()
    assert not out.any()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_extreme_scores_stay_finite() -> None:
    q, k, v, bias = (x.float() for x in _inputs(2))
    row, mask = _events(4, 3)
    out = _fast(row, mask, event_tables(q * 1e4, k, v, bias, "softmax"), "softmax")
    assert out.isfinite().all()


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, math.nan, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _tables(
    weighting: Weighting,
    dtype: torch.dtype = torch.float32,
    *,
    lags: int = 3,
    heads: int = 2,
    latents: int = 8,
    width: int = 16,
) -> EventTables:
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(DEVICE)

    tables = event_tables(
        normal(lags, latents, heads, width),
        normal(ROWS, heads, width),
        normal(ROWS, heads, width),
        torch.linspace(-1.0, 0.5, heads, device=DEVICE),
        weighting,
    )
    return op.pack(tables, dtype)


def _columns(counts: list[list[int]], width: int | None = None) -> EventColumns:
    """Random events with holes; in holes and padding lies what must not be looked up."""
    count_BS = torch.tensor(counts, device=DEVICE)
    width = width or max(1, int(count_BS.max()))
    g = torch.Generator().manual_seed(4)
    shape = (*count_BS.shape, width)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, shape, generator=g).to(DEVICE)

    mask = (torch.arange(width, device=DEVICE) < count_BS[..., None]) & (draw(0, 5) > 0)
    # Some counts are beyond the table, and no table has rows for the last units.
    return EventColumns(
        draw(0, UNITS).where(mask, 100),
        draw(0, PLACES[0]).where(mask, 100),
        draw(-1, PLACES[1] + 2),
        mask,
        count_BS,
    )


def _at(events: EventColumns, sample: Any, step: Any) -> EventColumns:
    """One step of some samples, as a stream has it."""
    return EventColumns(*(column[sample, step][:, None] for column in events))


def _exact(tables: EventTables) -> EventTables:
    return EventTables(*(table.double() for table in tables))


def _assert_equal(found: Tensor, exact: Tensor) -> None:
    """Within the rounding of sums in float32, and of the answer's own type."""
    # The interpreter truncates to bfloat16 where a GPU rounds: one unit in the last place.
    rtol = 2**-7 if found.dtype == torch.bfloat16 else 2e-5
    torch.testing.assert_close(found.double(), exact, rtol=rtol, atol=1e-4)


COUNTS = {
    "one event": [[0, 1, 0]],
    "no event": [[0, 0], [0, 0]],
    "one step": [[5], [0], [33]],
    "silent sample": [[0, 0, 0, 0, 0], [3, 0, 17, 1, 40]],
    "many steps": [[7, 0, 0, 0, 0, 0, 5, 1, 2, 31, 33, 0, 2]],
    "busy step": [[2, 150, 0, 1]],
}


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@torch.no_grad()
def test_reads_equal_the_reference_in_float64(
    weighting: Weighting, dtype: torch.dtype, counts: list[list[int]]
) -> None:
    tables, events = _tables(weighting, dtype), _columns(counts)
    exact = op.event_reads_reference(events, PLACES, _exact(tables), weighting)
    found = op.event_reads_triton(events, PLACES, tables, weighting)
    assert found.dtype == dtype
    assert found.transpose(2, 3).is_contiguous()
    _assert_equal(found, exact)


@pytest.mark.parametrize("form", [op.event_reads_reference, op.event_reads_triton])
@torch.no_grad()
def test_rows_are_numbered_by_unit_phase_and_value(form: Any) -> None:
    width = 16
    # Every weight is one, and a row's value is its number.
    tables = EventTables(
        torch.ones(ROWS, 1, 2, 1, device=DEVICE),
        torch.arange(ROWS, device=DEVICE)[:, None, None].expand(-1, 1, width).float().contiguous(),
    )
    columns = [[[3, 1]], [[1, 0]], [[7, -4]], [[True, True]], [2]]
    events = EventColumns(*(torch.tensor([column], device=DEVICE) for column in columns))
    read = form(events, (2, 3), tables, "sigmoid")
    # A count of 7 shares the last row, (3 * 2 + 1) * 3 + 2; one of -4 the first, (1 * 2 + 0) * 3.
    assert read.flatten().tolist() == [23.0 + 6.0] * width


@pytest.mark.parametrize("index", [torch.uint8, torch.int16, torch.int32])
@torch.no_grad()
def test_columns_of_every_type(index: torch.dtype) -> None:
    tables, events = _tables("sigmoid"), _columns([[3, 0, 20, 1]])
    events = events._replace(value_BSE=events.value_BSE.abs())
    narrow = EventColumns(*(c if c.dtype == torch.bool else c.to(index) for c in events))
    exact = op.event_reads_reference(events, PLACES, _exact(tables), "sigmoid")
    for columns in (narrow, narrow._replace(unit_BSE=events.unit_BSE)):
        for form in (op.event_reads_triton, op.event_reads_reference):
            _assert_equal(form(columns, PLACES, tables, "sigmoid"), exact)


@torch.no_grad()
def test_columns_that_are_views() -> None:
    tables, events = _tables("softmax"), _columns([[3, 0, 20], [1, 4, 9]])
    exact = op.event_reads_reference(events, PLACES, _exact(tables), "softmax")
    views = EventColumns(*(c.mT.contiguous().mT for c in events))
    _assert_equal(op.event_reads_triton(views, PLACES, tables, "softmax"), exact)


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter takes too long")
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@torch.no_grad()
def test_a_hundred_thousand_events_in_a_step(weighting: Weighting) -> None:
    tables, events = _tables(weighting), _columns([[2, 100_000, 1]])
    exact = op.event_reads_reference(events, PLACES, _exact(tables), weighting)
    found = op.event_reads_triton(events, PLACES, tables, weighting)
    # Float32 has seven digits, and some thousand blocks are added up.
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lags", "latents", "width"), [(9, 4, 64), (2, 12, 16), (8, 1, 20)])
@pytest.mark.parametrize("pairs", [16, 64])
@torch.no_grad()
def test_reads_of_every_shape_and_cut(
    weighting: Weighting, lags: int, latents: int, width: int, pairs: int
) -> None:
    tables = _tables(weighting, lags=lags, latents=latents, width=width)
    events = _columns([[3, 0, 20, 4, 1, 0, 2]], width=24)
    config = op.EventConfig(pairs, events=16, warps=4, stages=2)
    found = op.event_reads_triton(events, PLACES, tables, weighting, config=config)
    exact = op.event_reads_reference(events, PLACES, _exact(tables), weighting)
    _assert_equal(found, exact)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@torch.no_grad()
def test_tables_need_not_be_packed(weighting: Weighting) -> None:
    packed, events = _tables(weighting), _columns([[3, 0, 20]])
    # In memory as einsum may leave them.
    weights = packed.weights_RHJL.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    values = packed.values_RHK.mT.contiguous().mT
    loose = op.event_reads_triton(events, PLACES, EventTables(weights, values), weighting)
    _assert_equal(loose, op.event_reads_reference(events, PLACES, _exact(packed), weighting))


@pytest.mark.usefixtures("poison")
@torch.no_grad()
def test_reads_of_nothing_are_empty_or_zero() -> None:
    tables, events = _tables("softmax"), _columns([[0, 0, 0], [0, 0, 0]])
    for columns, shape in (
        (events, (2, 3)),
        (EventColumns(*(c[..., :0] for c in events))._replace(count_BS=events.count_BS), (2, 3)),
        (EventColumns(*(c[:, :0] for c in events)), (2, 0)),
        (EventColumns(*(c[:0] for c in events)), (0, 3)),
    ):
        read = op.event_reads_triton(columns, PLACES, tables, "softmax")
        assert read.shape == (*shape, 2, 8, 16)
        assert not read.any()


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@torch.no_grad()
def test_packed_tables_are_the_same_tables(weighting: Weighting) -> None:
    tables = _tables(weighting, width=20)
    again = op.pack(tables, torch.float32)
    assert again.values_RHK.stride(1) == 32
    for one, other in zip(again, tables, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize(
    ("form", "dtype", "latents"),
    [
        ("reference", torch.float32, 12),
        ("triton", torch.float32, 12),
        ("triton", torch.bfloat16, 4),
    ],
)
@torch.no_grad()
def test_a_stream_equals_the_session(
    weighting: Weighting, form: str, dtype: torch.dtype, latents: int
) -> None:
    step_form: Any = getattr(op, f"event_step_{form}")
    n_steps, lags, slots, first = 10, 3, torch.tensor([3, 1]), torch.tensor([0, -7])
    tables = _tables(weighting, dtype, lags=lags, latents=latents)
    g = torch.Generator().manual_seed(5)
    counts = torch.randint(6, (2, n_steps), generator=g)
    counts[0, 3:7] = 0
    counts[1, 5] = 40
    events = _columns(counts.tolist())
    exact = op.event_reads_reference(events, PLACES, _exact(tables), weighting)
    width = tables.values_RHK.shape[-1]
    # Nobody reads or writes the other slots.
    sums = torch.full((4, lags, 2, latents, width), math.nan, device=DEVICE)
    sums[slots] = 0
    done = torch.zeros(2, dtype=torch.int64)
    # Now one stream alone, now both, in either order.
    while int(done.min()) < n_steps:
        turn = [[0], [1, 0], [1], [0, 1]][int(done.sum()) % 4]
        which = torch.tensor([sample for sample in turn if done[sample] < n_steps])
        if not len(which):
            which = done.argmin()[None]
        at = done[which]
        slot, step = slots[which].to(DEVICE), (first[which] + at).to(DEVICE)
        found = step_form(sums, slot, step, _at(events, which, at), PLACES, tables, weighting)
        assert found.dtype == dtype
        _assert_equal(found, exact[which, at])
        done[which] += 1
    assert sums[[0, 2]].isnan().all()
    assert not sums[[1, 3]].isnan().any()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lags", "latents", "width"), [(1, 4, 16), (8, 8, 32), (9, 12, 20)])
@pytest.mark.parametrize("pairs", [16, 64])
@torch.no_grad()
def test_a_step_changes_the_sums_as_the_reference_does(
    weighting: Weighting, lags: int, latents: int, width: int, pairs: int
) -> None:
    tables = _tables(weighting, lags=lags, latents=latents, width=width)
    events = _at(_columns([[0], [40], [3]]), slice(None), 0)
    slot, step = (torch.tensor(x, device=DEVICE) for x in ([2, 0, 4], [0, 13, 2**40]))
    shape = (5, lags, 2, latents, tables.values_RHK.shape[-1])
    sums = torch.rand(shape, generator=torch.Generator().manual_seed(6)).to(DEVICE)
    exact = sums.double()
    arguments = (slot, step, events, PLACES)
    seen = op.event_step_reference(exact, *arguments, _exact(tables), weighting)
    config = op.EventConfig(pairs, events=16, warps=4, stages=2)
    found = op.event_step_triton(sums, *arguments, tables, weighting, config=config)
    assert found.transpose(1, 2).is_contiguous()
    _assert_equal(found, seen)
    _assert_equal(sums, exact)


@torch.no_grad()
def test_slots_may_repeat_for_a_spare_one() -> None:
    tables, events = _tables("sigmoid"), _at(_columns([[4], [3], [0]]), slice(None), 0)
    sums = torch.zeros(3, 3, 2, 8, 16, device=DEVICE)
    alone = sums.clone()
    slot, step = (torch.tensor(x, device=DEVICE) for x in ([1, 2, 2], [5, 0, 0]))
    found = op.event_step_triton(sums, slot, step, events, PLACES, tables, "sigmoid")
    one = EventColumns(*(column[:1] for column in events))
    expected = op.event_step_triton(alone, slot[:1], step[:1], one, PLACES, tables, "sigmoid")
    assert torch.equal(found[:1], expected)
    assert torch.equal(sums[:2], alone[:2])


def test_sums_of_another_shape_are_refused() -> None:
    tables, events = _tables("sigmoid"), _columns([[2]])
    slot = step = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    sums = torch.zeros(4, 2, 8, 16, 3, device=DEVICE)
    for wrong in (sums, sums.permute(0, 4, 1, 2, 3)):
        with pytest.raises(ValueError, match="expected contiguous"):
            op.event_step_triton(wrong, slot, step, events, PLACES, tables, "sigmoid")


def test_configs_cover_the_work() -> None:
    few = op.reads_config(1, 32, 8, 8, torch.bfloat16)
    many = op.reads_config(32, 32, 8, 8, torch.bfloat16)
    assert (few.pairs, many.pairs) == (32, 64)
    assert op.step_config(1, 8, 8, 8, torch.bfloat16).pairs == 16
    assert op.step_config(512, 8, 8, 8, torch.bfloat16).pairs == 64


@torch.no_grad()
def test_a_forced_form_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, nothing, events = _tables("sigmoid"), torch.zeros(0, device=DEVICE), _columns([[1]])
    for form in ("triton", "reference"):
        for name in ("reads", "step"):
            monkeypatch.setattr(op, f"event_{name}_{form}", lambda *_, form=form, **__: form)
    for choice, form in (("triton", "triton"), ("torch", "reference")):
        with forced(choice):  # type: ignore[arg-type]
            read: Any = op.event_reads(events, PLACES, tables, "sigmoid")
            step: Any = op.event_step(nothing, nothing, nothing, events, PLACES, tables, "sigmoid")
        assert (read, step) == (form, form)


def test_gradients_take_the_plain_form() -> None:
    tables, events = _tables("sigmoid"), _columns([[2, 1]])
    tables.values_RHK.requires_grad_()
    op.event_reads(events, PLACES, tables, "sigmoid").sum().backward()
    assert tables.values_RHK.grad is not None
    assert tables.values_RHK.grad.any()
