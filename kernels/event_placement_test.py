"""Placing events against its reference, in Triton's interpreter where there is no GPU."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import event_placement as op
from kernels.dispatch import forced
from kernels.event_attention import EventColumns

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BINS = 4


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not what it should be."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, 99, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


def _listed(counts: list[int], steps: int, unread: int = 0, bins: Tensor | None = None) -> Any:
    """Random events of samples of so many, with garbage behind them."""
    torch.manual_seed(0)
    total = sum(counts) + unread
    if bins is None:
        bins = torch.cat([torch.randint(steps * BINS, (n,)).sort().values for n in counts])
    bins = torch.cat((bins, torch.full((unread,), -7)))
    start = torch.tensor([0, *counts]).cumsum(0)
    columns = torch.randint(1000, (total,)), bins, torch.randint(1, 9, (total,)), start
    return op.ListedEvents(*(column.int().to(DEVICE) for column in columns))


def _check(got: EventColumns, expected: EventColumns) -> None:
    assert torch.equal(got.count_BS, expected.count_BS)
    assert torch.equal(got.mask_BSE, expected.mask_BSE)
    for name in ("unit_BSE", "phase_BSE", "value_BSE"):
        found, wanted = getattr(got, name), getattr(expected, name)
        assert found.dtype == wanted.dtype
        assert torch.equal(found[expected.mask_BSE], wanted[expected.mask_BSE]), name


@pytest.mark.parametrize(
    ("counts", "steps", "places", "unread"),
    [
        ([5], 1, 8, 0),
        ([0], 1, 8, 3),
        ([40, 0, 7, 300], 5, 300, 11),
        ([3, 1, 0, 0, 2], 1, 8, 35),
        ([700, 20], 32, 128, 0),
        ([0, 0], 3, 8, 0),
    ],
)
def test_kernel_equals_the_reference(
    counts: list[int], steps: int, places: int, unread: int
) -> None:
    events = _listed(counts, steps, unread)
    options = {"steps": steps, "bins_per_step": BINS, "places": places}
    expected = op.place_events_reference(events, **options)
    _check(op.place_events_triton(events, **options), expected)


def test_each_event_is_where_it_belongs() -> None:
    bins = torch.tensor([0, 3, 4, 11, 2, 2, 2])
    events = _listed([4, 3], 3, bins=bins)
    placed = op.place_events_reference(events, steps=3, bins_per_step=BINS, places=3)
    assert placed.count_BS.tolist() == [[2, 1, 1], [3, 0, 0]]
    assert placed.phase_BSE.tolist() == [
        [[0, 3, 0], [0, 0, 0], [3, 0, 0]],
        [[2, 2, 2], [0, 0, 0], [0, 0, 0]],
    ]
    unit = events.unit_N
    assert torch.equal(placed.unit_BSE[0, :, 0], unit[[0, 2, 3]])
    assert torch.equal(placed.unit_BSE[1, 0], unit[4:])
    assert torch.equal(placed.value_BSE[placed.mask_BSE], events.value_N)


def test_no_samples() -> None:
    for form in (op.place_events_reference, op.place_events_triton):
        placed = form(_listed([], 2, 4, torch.zeros(0)), steps=2, bins_per_step=BINS, places=8)
        assert placed.unit_BSE.shape == (0, 2, 8)
        assert placed.count_BS.shape == (0, 2)


@torch.no_grad()
def test_the_dispatch_takes_the_forced_form(monkeypatch: pytest.MonkeyPatch) -> None:
    events, taken = _listed([4], 1), []
    for name in ("place_events_reference", "place_events_triton"):
        monkeypatch.setattr(op, name, lambda *_, name=name, **__: taken.append(name))
    for form in ("torch", "triton"):
        with forced(form):
            op.place_events(events, steps=1, bins_per_step=BINS, places=8)
    assert taken == ["place_events_reference", "place_events_triton"]
