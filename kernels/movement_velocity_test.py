"""The decoder's end against a formula in float64, in Triton's interpreter where there is no GPU."""

import math
import os
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from kernels import movement_velocity as op
from kernels.dispatch import forced
from kernels.event_attention import EventColumns

UNITS = 13
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel forgets to write is not a number."""

    def poisoned(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.full(shape, math.nan, **options)

    monkeypatch.setattr(torch, "empty", poisoned)


class Arguments(NamedTuple):
    """The offline operator's arguments, in its order."""

    x_BTQD: Tensor
    head: op.VelocityHead
    evidence: op.SpikeEvidence | None
    events: EventColumns

    def exact(self) -> Tensor:
        """The formula in float64, a step at a time."""
        n_samples, n_steps, _ = self.events.unit_BSE.shape
        y_BTQN2 = self._kinds_velocity()
        velocity = torch.zeros(n_samples, n_steps, self.x_BTQD.shape[2], 2, device=DEVICE).double()
        for b in range(n_samples):
            for s in range(n_steps):
                share_N = self._logits(b, s).softmax(0)
                velocity[b, s] = torch.einsum("n,qna->qa", share_N, y_BTQN2[b, s])
        return velocity * self.head.scale_2.double() + self.head.mean_2.double()

    def _kinds_velocity(self) -> Tensor:
        x, head = self.x_BTQD.double(), self.head
        x = x / (x.square().mean(-1, keepdim=True) + head.eps).sqrt() * head.gain_D.double()
        y: Tensor = (x @ head.weight_OD.double().T + head.bias_O.double()).unflatten(-1, (-1, 2))
        return y

    def _logits(self, sample: int, step: int) -> Tensor:
        if self.evidence is None:
            return torch.zeros(1, device=DEVICE).double()
        said_N = torch.zeros_like(self.evidence.bias_N).double()
        for seen in range(max(0, step - self.evidence.steps + 1), step + 1):
            place = sample, seen, slice(int(self.events.count_BS[sample, seen]))
            unit_E, value_E, mask_E = (
                column[place]
                for column in (self.events.unit_BSE, self.events.value_BSE, self.events.mask_BSE)
            )
            spikes_E = value_E.double() * mask_E
            said_N += spikes_E @ self.evidence.table_UN.double()[unit_E.long()]
        counted = min(step + 1, self.evidence.steps)
        return said_N / math.sqrt(counted) + self.evidence.bias_N.double()

    def at(self, step: int) -> EventColumns:
        """The events of one step."""
        return EventColumns(*(column[:, step : step + 1] for column in self.events))


def _events(
    n_samples: int, n_steps: int, width: int, index: torch.dtype = torch.int64
) -> EventColumns:
    shape = n_samples, n_steps, width
    count_BS = torch.randint(width + 1, shape[:2], device=DEVICE)
    # An empty step and a full one.
    count_BS[-1, 0], count_BS[0, -1] = 0, width
    inside_BSE = torch.arange(width, device=DEVICE) < count_BS[..., None]
    # Behind a step's events lies what no kernel may use.
    unit_BSE = torch.randint(UNITS, shape, device=DEVICE).masked_fill(~inside_BSE, 10**6)
    return EventColumns(
        unit_BSE.to(index),
        torch.zeros(shape, device=DEVICE, dtype=index),
        torch.randint(1, 9, shape, device=DEVICE).to(index),
        (torch.rand(shape, device=DEVICE) < 0.8) | ~inside_BSE,
        count_BS.to(index),
    )


def _arguments(
    kinds: int = 8,
    *,
    shape: tuple[int, int, int, int] = (2, 5, 1, 32),
    width: int = 6,
    steps: int = 3,
    dtype: torch.dtype = torch.float32,
    index: torch.dtype = torch.int64,
) -> Arguments:
    torch.manual_seed(kinds)
    n_samples, n_steps, n_queries, dim = shape

    def normal(*size: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(size, device=DEVICE).to(dtype)

    head = op.VelocityHead(
        normal(dim),
        normal(2 * kinds, dim) * dim**-0.5,
        normal(2 * kinds),
        1e-6,
        normal(2, dtype=torch.float32),
        normal(2, dtype=torch.float32),
    )
    told = normal(UNITS, kinds, dtype=torch.float32) / 8
    evidence = op.SpikeEvidence(told, normal(kinds), steps) if kinds > 1 else None
    x_BTQD = normal(n_samples, n_steps, n_queries, dim)
    return Arguments(x_BTQD, head, evidence, _events(n_samples, n_steps, width, index))


class Stream:
    """A session of `Arguments` a step at a time, sample b in slot 2 b + 1."""

    def __init__(self, arguments: Arguments, first_step: int = 0) -> None:
        self.arguments = arguments
        n_samples = len(arguments.x_BTQD)
        self.slot_B = 2 * torch.arange(n_samples, device=DEVICE).flip(0) + 1
        self.first_B = torch.full((n_samples,), first_step - 1, device=DEVICE)
        self.said_PJN = None
        if arguments.evidence:
            ring = arguments.evidence.steps, len(arguments.evidence.bias_N)
            self.said_PJN = torch.zeros(2 * n_samples + 1, *ring, device=DEVICE)

    def step(self, form: Any, step: int, **options: Any) -> Tensor:
        """The velocity (B, Q, 2) of a step, counted from 0."""
        x_BTQD, head, evidence, _ = self.arguments
        velocity: Tensor = form(
            x_BTQD[:, step],
            head,
            evidence,
            self.said_PJN,
            self.slot_B,
            self.first_B + 1 + step,
            self.first_B,
            self.arguments.at(step),
            **options,
        )
        return velocity


FORMS = [op.movement_velocity_reference, op.movement_velocity_triton]
STREAM_FORMS = [op.advance_movement_velocity_reference, op.advance_movement_velocity_triton]


def _assert_equal(velocity: Tensor, exact: Tensor) -> None:
    assert velocity.dtype == torch.float32
    torch.testing.assert_close(velocity.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kinds", [1, 2, 8, 11])
@pytest.mark.parametrize("n_queries", [1, 3])
@torch.no_grad()
def test_equals_the_formula(form: Any, kinds: int, n_queries: int) -> None:
    arguments = _arguments(kinds, shape=(2, 5, n_queries, 48))
    _assert_equal(form(*arguments), arguments.exact())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [1, 8])
@torch.no_grad()
def test_any_number_of_steps(form: Any, steps: int) -> None:
    arguments = _arguments(steps=steps, index=torch.int32)
    _assert_equal(form(*arguments), arguments.exact())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", [1, 4])
@torch.no_grad()
def test_the_last_steps_alone(form: Any, last: int) -> None:
    arguments = _arguments()
    some = arguments._replace(x_BTQD=arguments.x_BTQD[:, -last:])
    _assert_equal(form(*some), arguments.exact()[:, -last:])


@pytest.mark.parametrize("config", [(1, 1), (4, 2), (16, 4)])
@torch.no_grad()
def test_every_cut_gives_the_same(config: tuple[int, int]) -> None:
    arguments = _arguments(width=11)
    cut = op.VelocityConfig(*config)
    _assert_equal(op.movement_velocity_triton(*arguments, config=cut), arguments.exact())
    stream = Stream(arguments)
    for step in range(5):
        velocity = stream.step(op.advance_movement_velocity_triton, step, config=cut)
        _assert_equal(velocity, arguments.exact()[:, step])


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_silence_leaves_the_bias(form: Any) -> None:
    arguments = _arguments()
    silent = arguments.events._replace(count_BS=torch.zeros_like(arguments.events.count_BS))
    arguments = arguments._replace(events=silent)
    _assert_equal(form(*arguments), arguments.exact())


@torch.no_grad()
def test_overwhelming_evidence_is_finite() -> None:
    arguments = _arguments()
    assert arguments.evidence
    loud = arguments.evidence._replace(table_UN=arguments.evidence.table_UN * 1e3)
    arguments = arguments._replace(evidence=loud)
    _assert_equal(op.movement_velocity_triton(*arguments), arguments.exact())


@torch.no_grad()
def test_bfloat16_loses_nothing_but_its_inputs_rounding() -> None:
    arguments = _arguments(dtype=torch.bfloat16)
    _assert_equal(op.movement_velocity_triton(*arguments), arguments.exact())
    rounded = op.movement_velocity_reference(*arguments)
    torch.testing.assert_close(rounded.double(), arguments.exact(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(0, 5, 1, 32), (2, 5, 0, 32)])
@torch.no_grad()
def test_nothing_to_decode(form: Any, shape: tuple[int, int, int, int]) -> None:
    arguments = _arguments()
    n_samples, n_steps, n_queries, _ = shape
    empty = arguments._replace(
        x_BTQD=arguments.x_BTQD[:n_samples, :n_steps, :n_queries],
        events=EventColumns(*(c[:n_samples, :n_steps] for c in arguments.events)),
    )
    assert form(*empty).shape == (*shape[:3], 2)


@pytest.mark.parametrize("form", STREAM_FORMS)
@pytest.mark.parametrize("kinds", [1, 8, 11])
@pytest.mark.parametrize("first_step", [0, 7])
@torch.no_grad()
def test_a_stream_equals_the_formula_beyond_the_ring(
    form: Any, kinds: int, first_step: int
) -> None:
    arguments = _arguments(kinds, shape=(2, 8, 2, 32))
    stream = Stream(arguments, first_step)
    exact = arguments.exact()
    for step in range(8):
        _assert_equal(stream.step(form, step), exact[:, step])


@pytest.mark.parametrize("form", STREAM_FORMS)
@pytest.mark.parametrize("kinds", [8, 11])
@torch.no_grad()
def test_a_step_writes_its_own_sums_alone(form: Any, kinds: int) -> None:
    stream = Stream(_arguments(kinds))
    assert stream.said_PJN is not None
    stream.said_PJN.fill_(5.0)
    stream.step(form, 2)
    assert (stream.said_PJN[1::2, 2] != 5.0).all()
    stream.said_PJN[1::2, 2] = 5.0
    assert (stream.said_PJN == 5.0).all()


@pytest.mark.parametrize("form", STREAM_FORMS)
@torch.no_grad()
def test_a_silent_step_forgets_the_oldest(form: Any) -> None:
    arguments = _arguments()
    stream = Stream(arguments)
    assert stream.said_PJN is not None
    stream.said_PJN.fill_(5.0)
    arguments.events.count_BS.zero_()
    stream.step(form, 1)
    assert (stream.said_PJN[1::2, 1] == 0.0).all()


@torch.no_grad()
def test_spare_streams_share_a_slot_without_harm() -> None:
    arguments = _arguments(shape=(3, 4, 1, 32))
    stream = Stream(arguments)
    stream.slot_B[1:] = 0
    for step in range(4):
        velocity = stream.step(op.advance_movement_velocity_triton, step)
        _assert_equal(velocity[0], arguments.exact()[0, step])


@torch.no_grad()
def test_rows_that_are_views() -> None:
    arguments = _arguments()
    x_BTQD = arguments.x_BTQD
    across = arguments._replace(x_BTQD=x_BTQD.transpose(1, 3).contiguous().transpose(1, 3))
    _assert_equal(op.movement_velocity_triton(*across), arguments.exact())


@torch.no_grad()
def test_kinds_need_evidence_and_shapes_must_fit() -> None:
    arguments = _arguments()
    with pytest.raises(ValueError, match="kinds of movement"):
        op.movement_velocity_triton(*arguments._replace(evidence=None))
    with pytest.raises(ValueError, match="rows"):
        op.movement_velocity_triton(*arguments._replace(x_BTQD=arguments.x_BTQD[:1]))
    with pytest.raises(ValueError, match="rows"):
        more = arguments.x_BTQD.repeat(1, 2, 1, 1)
        op.movement_velocity_triton(*arguments._replace(x_BTQD=more))
    stream = Stream(arguments)
    stream.said_PJN = None
    with pytest.raises(ValueError, match="sums"):
        stream.step(op.advance_movement_velocity_triton, 0)


@torch.no_grad()
def test_a_forced_form_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = _arguments()
    for name in ("movement_velocity", "advance_movement_velocity"):
        monkeypatch.setattr(op, f"{name}_triton", lambda *_: "kernel")
        monkeypatch.setattr(op, f"{name}_reference", lambda *_: "reference")
    for form, expected in (("triton", "kernel"), ("torch", "reference")):
        with forced(form):  # type: ignore[arg-type]
            assert op.movement_velocity(*arguments) == expected
            assert Stream(arguments).step(op.advance_movement_velocity, 0) == expected


def test_gradients_take_the_reference() -> None:
    arguments = _arguments()
    assert arguments.evidence
    arguments.evidence.table_UN.requires_grad_()
    op.movement_velocity(*arguments).sum().backward()
    assert arguments.evidence.table_UN.grad is not None
    assert arguments.evidence.table_UN.grad.isfinite().all()
