"""The end of the decoder: query rows and the spikes of the last steps to velocity, in one launch.

Formula, for a query's row x of step s and the events (u, c) of steps s - J + 1 .. s, with a linear
layer W, b that has two outputs for each of N kinds of movement:

    y = W (x / sqrt(mean(x^2) + eps) * gain) + b               velocity y_n of every kind n
    logit_n = sum table[u, n] * c / sqrt(min(s + 1, J)) + bias_n
    out = sum_n softmax_n(logit) y_n * scale + mean

Noise that units share makes a long count say less than its sum: hence the square root of the steps
counted. Where there is one kind there is nothing to tell apart, and out = y * scale + mean.

Every part is small: the time that it takes is the time of its launches. The kernel has one. A
program serves one step. It loads the layer while the kernel before still runs, walks the events of
the J steps, as many as there are, and multiplies each query by the layer, which stays in registers.
The first events are loaded before it is known how many are real, which saves waiting for the
counts. In a stream the sums of the J steps are a ring, and only a step's own events are walked.

Source: naive Bayes decoding of Poisson units, Zhang et al. 1998, doi:10.1152/jn.1998.79.2.1017;
mixtures of experts, Jacobs et al. 1991, doi:10.1162/neco.1991.3.1.79.

Shapes: B samples or streams, S steps, T the last of them, Q queries a step, D width,
N kinds of movement, O = 2 N outputs, U units, E events a step, J steps of events that count, P
slots of a stream; in kernels F events of all seen steps that are walked at once.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.event_attention import EventColumns


class VelocityHead(NamedTuple):
    """A norm, a linear layer, and the labels' unit.

    Attributes:
        gain_D: the norm's gain.
        weight_OD: the layer's weight; output n * 2 + axis is of kind n.
        bias_O: the layer's bias.
        eps: added to the mean square.
        mean_2: velocity of outputs that are zero, in the labels' unit.
        scale_2: the labels' unit of one output.
    """

    gain_D: Tensor
    weight_OD: Tensor
    bias_O: Tensor
    eps: float
    mean_2: Tensor
    scale_2: Tensor


class SpikeEvidence(NamedTuple):
    """What spikes say of the kind of movement.

    Attributes:
        table_UN: float32, what a spike of each unit says.
        bias_N: added to the logits.
        steps: J, the steps whose spikes count, the present one included.
    """

    table_UN: Tensor
    bias_N: Tensor
    steps: int


def kinds_velocity(x_QD: Tensor, head: VelocityHead) -> Tensor:
    """Standardised velocity (..., Q, N, 2) of each kind, of rows (..., Q, D)."""
    normed = F.rms_norm(x_QD, head.gain_D.shape, head.gain_D, head.eps)
    y: Tensor = F.linear(normed, head.weight_OD, head.bias_O).float().unflatten(-1, (-1, 2))
    return y


def evidence_logits(evidence: SpikeEvidence, events: EventColumns) -> Tensor:
    """Logits (B, S, N) of the kinds at every step."""
    said_BSN = F.pad(_step_sums(evidence, events), (0, 0, evidence.steps - 1, 0))
    steps_S = torch.arange(1, events.unit_BSE.shape[1] + 1, device=said_BSN.device)
    return _logits(said_BSN.unfold(1, evidence.steps, 1).sum(-1), steps_S, evidence)


def mixed_velocity(velocity_QN2: Tensor, logits_N: Tensor | None) -> Tensor:
    """Mean velocity (..., Q, 2) over the kinds, from each one's and their logits (..., N).

    Without logits there must be one kind.
    """
    if logits_N is None:
        return velocity_QN2.squeeze(-2)
    velocity: Tensor = (logits_N.softmax(-1)[..., None, :, None] * velocity_QN2).sum(-2)
    return velocity


def _step_sums(evidence: SpikeEvidence, events: EventColumns) -> Tensor:
    """(B, S, N) what the spikes of each step say."""
    place_E = torch.arange(events.unit_BSE.shape[-1], device=events.unit_BSE.device)
    absent_BSE = ~(events.mask_BSE & (place_E < events.count_BS[..., None]))
    spikes_BSE = events.value_BSE.masked_fill(absent_BSE, 0).float()
    unit_BSE = events.unit_BSE.long().masked_fill(absent_BSE, 0)
    said_BSEN = F.embedding(unit_BSE, evidence.table_UN).float()
    return (said_BSEN * spikes_BSE[..., None]).sum(-2)


def _logits(said_N: Tensor, steps: Tensor, evidence: SpikeEvidence) -> Tensor:
    """(..., N) logits from the sums over the last J of (...) steps done."""
    counted = steps.clamp(1, evidence.steps).float()
    return said_N * counted.rsqrt()[..., None] + evidence.bias_N.float()


def _denormalise(y: Tensor, head: VelocityHead) -> Tensor:
    """(..., 2) outputs in the labels' unit."""
    return y * head.scale_2.float() + head.mean_2.float()


class VelocityConfig(NamedTuple):
    """How a kernel cuts its work.

    Attributes:
        events: events of each seen step that are walked at once; a power of two.
        warps: warps a program.
    """

    events: int
    warps: int


def velocity_config(kinds: int, dim: int, seen: int) -> VelocityConfig:
    """The cut for N kinds, width D, and the steps whose events are walked.

    Args:
        kinds: N.
        dim: D.
        seen: J offline, 1 in a stream.
    """
    kinds, dim, seen = (triton.next_power_of_2(size) for size in (kinds, dim, seen))
    # Registers hold 64 numbers of the layer a thread, and 16 sums of the events.
    warps = min(16, max(4, 2 * kinds * dim // (32 * 64)))
    events = max(1, min(64, 256 // seen, 16 * 32 * warps // (seen * kinds)))
    return VelocityConfig(events, warps)


def movement_velocity_reference(
    x_BTQD: Tensor, head: VelocityHead, evidence: SpikeEvidence | None, events: EventColumns
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        x_BTQD: rows of the queries at the last T steps, bfloat16 or float32.
        head: bfloat16 or float32.
        evidence: None where N = 1.
        events: of S steps.

    Returns:
        (B, T, Q, 2) float32 velocity, in the labels' unit.
    """
    logits_BTN = None
    if evidence is not None:
        earlier = events.unit_BSE.shape[1] - x_BTQD.shape[1]
        logits_BTN = evidence_logits(evidence, events)[:, earlier:]
    return _denormalise(mixed_velocity(kinds_velocity(x_BTQD, head), logits_BTN), head)


def movement_velocity(
    x_BTQD: Tensor, head: VelocityHead, evidence: SpikeEvidence | None, events: EventColumns
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    if form_for(x_BTQD) == "triton":
        return movement_velocity_triton(x_BTQD, head, evidence, events)
    return movement_velocity_reference(x_BTQD, head, evidence, events)


def movement_velocity_triton(
    x_BTQD: Tensor,
    head: VelocityHead,
    evidence: SpikeEvidence | None,
    events: EventColumns,
    *,
    config: VelocityConfig | None = None,
) -> Tensor:
    """The Triton kernel, without gradients.

    Args:
        x_BTQD: as the reference's.
        head: likewise.
        evidence: likewise.
        events: likewise; columns of any integer type.
        config: how to cut the work; velocity_config's if not given.

    Returns:
        (B, T, Q, 2) float32.

    Raises:
        ValueError: several kinds without evidence, or shapes that do not fit each other.
    """
    n_samples, asked, n_queries, dim = x_BTQD.shape
    n_steps = events.unit_BSE.shape[1]
    kinds = _kinds(head, evidence, dim)
    if len(events.unit_BSE) != n_samples or asked > n_steps:
        raise ValueError(f"rows {tuple(x_BTQD.shape)}, events {tuple(events.unit_BSE.shape)}")
    steps = evidence.steps if evidence else 1
    config = config or velocity_config(kinds, dim, steps)
    out = torch.empty((n_samples, asked, n_queries, 2), device=x_BTQD.device, dtype=torch.float32)
    if out.numel():
        _movement_velocity_kernel[(n_samples * asked,)](
            x_BTQD.contiguous(),
            *_pointers(head, evidence, events),
            out,
            n_steps,
            asked,
            events.unit_BSE.shape[2],
            head.eps,
            D=dim,
            Q=n_queries,
            N=kinds,
            J=steps,
            EVIDENCE=evidence is not None,
            WIDTH=triton.next_power_of_2(dim),
            KINDS=triton.next_power_of_2(kinds),
            SEEN=triton.next_power_of_2(steps),
            EVENTS=config.events,
            num_warps=config.warps,
            **launch_options(x_BTQD),
        )
    return out


def advance_movement_velocity_reference(
    x_BQD: Tensor,
    head: VelocityHead,
    evidence: SpikeEvidence | None,
    said_PJN: Tensor | None,
    slot_B: Tensor,
    step_B: Tensor,
    first_B: Tensor,
    events: EventColumns,
) -> Tensor:
    """Plain PyTorch: one step of every stream.

    Args:
        x_BQD: rows of the step's queries, bfloat16 or float32.
        head: bfloat16 or float32.
        evidence: None where N = 1.
        said_PJN: float32, what the spikes of the last steps of every slot say; that of the step
            numbered n is at n % J, and zero where the step has not come. Written in place; None
            where N = 1.
        slot_B: the slots that advance; repeated only where it does not matter what one holds.
        step_B: number of each slot's step.
        first_B: number of its first step, the start, which counts no spikes.
        events: of the step, S = 1.

    Returns:
        (B, Q, 2) float32 velocity, in the labels' unit.
    """
    y_BQN2 = kinds_velocity(x_BQD, head)
    if evidence is None:
        return _denormalise(mixed_velocity(y_BQN2, None), head)
    assert said_PJN is not None
    slot = slot_B.long()
    said_PJN[slot, step_B.long() % evidence.steps] = _step_sums(evidence, events)[:, 0]
    logits_BN = _logits(said_PJN[slot].sum(1), step_B - first_B, evidence)
    return _denormalise(mixed_velocity(y_BQN2, logits_BN), head)


def advance_movement_velocity(
    x_BQD: Tensor,
    head: VelocityHead,
    evidence: SpikeEvidence | None,
    said_PJN: Tensor | None,
    slot_B: Tensor,
    step_B: Tensor,
    first_B: Tensor,
    events: EventColumns,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = advance_movement_velocity_reference
    if form_for(x_BQD) == "triton":
        form = advance_movement_velocity_triton
    return form(x_BQD, head, evidence, said_PJN, slot_B, step_B, first_B, events)


def advance_movement_velocity_triton(
    x_BQD: Tensor,
    head: VelocityHead,
    evidence: SpikeEvidence | None,
    said_PJN: Tensor | None,
    slot_B: Tensor,
    step_B: Tensor,
    first_B: Tensor,
    events: EventColumns,
    *,
    config: VelocityConfig | None = None,
) -> Tensor:
    """The Triton kernel, without gradients.

    Args:
        x_BQD: as the reference's.
        head: likewise.
        evidence: likewise.
        said_PJN: likewise, contiguous.
        slot_B: likewise, of any integer type.
        step_B: likewise.
        first_B: likewise.
        events: likewise; columns of any integer type.
        config: how to cut the work; velocity_config's if not given.

    Returns:
        (B, Q, 2) float32.

    Raises:
        ValueError: several kinds without evidence, or shapes that do not fit each other.
    """
    n_streams, n_queries, dim = x_BQD.shape
    kinds = _kinds(head, evidence, dim)
    if events.unit_BSE.shape[:2] != (n_streams, 1):
        raise ValueError(f"rows {tuple(x_BQD.shape)}, events {tuple(events.unit_BSE.shape)}")
    steps = evidence.steps if evidence else 1
    if evidence:
        _check_ring(said_PJN, steps, kinds)
    config = config or velocity_config(kinds, dim, 1)
    out = torch.empty((n_streams, n_queries, 2), device=x_BQD.device, dtype=torch.float32)
    if out.numel():
        _advance_movement_velocity_kernel[(n_streams,)](
            x_BQD.contiguous(),
            *_pointers(head, evidence, events),
            said_PJN if evidence else None,
            slot_B.contiguous(),
            step_B.contiguous(),
            first_B.contiguous(),
            out,
            events.unit_BSE.shape[2],
            head.eps,
            D=dim,
            Q=n_queries,
            N=kinds,
            J=steps,
            EVIDENCE=evidence is not None,
            WIDTH=triton.next_power_of_2(dim),
            KINDS=triton.next_power_of_2(kinds),
            RING=triton.next_power_of_2(steps),
            EVENTS=config.events,
            num_warps=config.warps,
            **launch_options(x_BQD),
        )
    return out


def _kinds(head: VelocityHead, evidence: SpikeEvidence | None, dim: int) -> int:
    """N, the head's and the evidence's."""
    n_outputs, width = head.weight_OD.shape
    told = evidence.table_UN.shape[1] if evidence else 1
    if n_outputs != 2 * told or width != dim:
        raise ValueError(
            f"the weight is {tuple(head.weight_OD.shape)}, expected {(2 * told, dim)} for {told} "
            "kinds of movement"
        )
    return told


def _check_ring(said_PJN: Tensor | None, steps: int, kinds: int) -> None:
    if said_PJN is None or said_PJN.shape[1:] != (steps, kinds) or not said_PJN.is_contiguous():
        raise ValueError(f"expected contiguous sums (P, {steps}, {kinds})")
    if said_PJN.dtype != torch.float32:
        raise ValueError(f"sums are {said_PJN.dtype}, expected float32")


def _pointers(
    head: VelocityHead, evidence: SpikeEvidence | None, events: EventColumns
) -> tuple[Tensor | None, ...]:
    """What both kernels read, in their order."""
    layer = (head.gain_D, head.weight_OD, head.bias_O, head.mean_2, head.scale_2)
    tensors: tuple[Tensor | None, ...] = tuple(tensor.contiguous() for tensor in layer)
    if evidence is None:
        return (*tensors, None, None, None, None, None, None)
    told = (
        evidence.table_UN,
        evidence.bias_N,
        events.unit_BSE,
        events.value_BSE,
        events.mask_BSE,
        events.count_BS,
    )
    return (*tensors, *(tensor.contiguous() for tensor in told))


@triton.jit  # type: ignore[untyped-decorator]
def _add_spikes(  # type: ignore[no-untyped-def]
    said_FN,
    table_ptr,
    unit_ptr,
    value_ptr,
    mask_ptr,
    row_F,
    exists_F,
    count_F,
    event_F,
    n_events,
    N: tl.constexpr,
    KINDS: tl.constexpr,
):
    """Adds what event_F of steps row_F say."""
    n = tl.arange(0, KINDS)
    place_F = row_F * n_events + event_F
    # Loads that depend on the counts would wait for them.
    there_F = exists_F & (event_F < n_events)
    unit_F = tl.load(unit_ptr + place_F, there_F, 0).to(tl.int32)
    value_F = tl.load(value_ptr + place_F, there_F, 0).to(tl.float32)
    real_F = tl.load(mask_ptr + place_F, there_F, 0) != 0
    # Zero where there is no event, so that only two columns go from thread to thread.
    spikes_F1 = tl.where(real_F & (event_F < count_F), value_F, 0.0)[:, None]
    inside_FN = (spikes_F1 != 0.0) & (n < N)[None, :]
    told_FN = tl.load(table_ptr + (unit_F[:, None] * N + n[None, :]), inside_FN, 0.0)
    return said_FN + told_FN.to(tl.float32) * spikes_F1


@triton.jit  # type: ignore[untyped-decorator]
def _said(  # type: ignore[no-untyped-def]
    table_ptr,
    unit_ptr,
    value_ptr,
    mask_ptr,
    count_ptr,
    oldest,
    least,
    n_events,
    J: tl.constexpr,
    N: tl.constexpr,
    KINDS: tl.constexpr,
    SEEN: tl.constexpr,
    EVENTS: tl.constexpr,
):
    """(KINDS,) what the spikes of J steps say, the rows from oldest on that are not below least."""
    f = tl.arange(0, SEEN * EVENTS)
    row_F = oldest + f // EVENTS
    exists_F = (f // EVENTS < J) & (row_F >= least)
    count_F = tl.load(count_ptr + row_F, exists_F, 0).to(tl.int32)
    said_FN = _add_spikes(
        tl.zeros((SEEN * EVENTS, KINDS), tl.float32),
        table_ptr,
        unit_ptr,
        value_ptr,
        mask_ptr,
        row_F,
        exists_F,
        count_F,
        f % EVENTS,
        n_events,
        N,
        KINDS,
    )
    for begin in tl.range(EVENTS, tl.max(count_F, 0), EVENTS):
        said_FN = _add_spikes(
            said_FN,
            table_ptr,
            unit_ptr,
            value_ptr,
            mask_ptr,
            row_F,
            exists_F,
            count_F,
            begin + f % EVENTS,
            n_events,
            N,
            KINDS,
        )
    return tl.sum(said_FN, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _kind_shares(  # type: ignore[no-untyped-def]
    said_N, steps, prior_N, N: tl.constexpr, J: tl.constexpr, KINDS: tl.constexpr
):
    """(KINDS,) probabilities of the kinds, with so many steps done."""
    counted = tl.minimum(tl.maximum(steps, 1), J).to(tl.float32)
    logits_N = said_N * (1.0 / tl.sqrt(counted)) + prior_N
    logits_N = tl.where(tl.arange(0, KINDS) < N, logits_N, float("-inf"))
    weight_N = tl.exp(logits_N - tl.max(logits_N, 0))
    return weight_N / tl.sum(weight_N, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _store_velocity(  # type: ignore[no-untyped-def]
    x_D,
    x_ptr,
    out_ptr,
    share_N,
    gain_D,
    weight_OD,
    bias_O,
    mean_2,
    scale_2,
    eps,
    D: tl.constexpr,
    Q: tl.constexpr,
    WIDTH: tl.constexpr,
    KINDS: tl.constexpr,
):
    """Writes the velocity of the Q rows at x_ptr, of which x_D is the first."""
    d = tl.arange(0, WIDTH)
    for q in tl.static_range(Q):
        wide_D = x_D.to(tl.float32)
        if q + 1 < Q:
            # On its way while this row is multiplied.
            x_D = tl.load(x_ptr + (q + 1) * D + d, d < D, 0.0)
        norm = 1.0 / tl.sqrt(tl.sum(wide_D * wide_D, 0) / D + eps)
        product_O = tl.sum(weight_OD.to(tl.float32) * (wide_D * gain_D)[None, :], 1)
        y_N2 = tl.reshape(product_O * norm + bias_O, (KINDS, 2))
        velocity_2 = tl.sum(y_N2 * share_N[:, None], 0) * scale_2 + mean_2
        tl.store(out_ptr + 2 * q + tl.arange(0, 2), velocity_2)


@triton.jit  # type: ignore[untyped-decorator]
def _load_head(  # type: ignore[no-untyped-def]
    gain_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    scale_ptr,
    D: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    KINDS: tl.constexpr,
):
    """The head, its outputs padded to 2 KINDS and its width to WIDTH."""
    o = tl.arange(0, 2 * KINDS)
    d = tl.arange(0, WIDTH)
    axis = tl.arange(0, 2)
    inside_OD = (o < 2 * N)[:, None] & (d < D)[None, :]
    weight_OD = tl.load(weight_ptr + (o[:, None] * D + d[None, :]), inside_OD, 0.0)
    gain_D = tl.load(gain_ptr + d, d < D, 0.0).to(tl.float32)
    bias_O = tl.load(bias_ptr + o, o < 2 * N, 0.0).to(tl.float32)
    mean_2 = tl.load(mean_ptr + axis).to(tl.float32)
    scale_2 = tl.load(scale_ptr + axis).to(tl.float32)
    return gain_D, weight_OD, bias_O, mean_2, scale_2


# Sizes that vary from call to call must not make new kernels: they have no bearing on alignment.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["n_steps", "asked", "n_events"]
)
def _movement_velocity_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    gain_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    scale_ptr,
    table_ptr,
    prior_ptr,
    unit_ptr,
    value_ptr,
    mask_ptr,
    count_ptr,
    out_ptr,
    n_steps,
    asked,
    n_events,
    eps,
    D: tl.constexpr,
    Q: tl.constexpr,
    N: tl.constexpr,
    J: tl.constexpr,
    EVIDENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    KINDS: tl.constexpr,
    SEEN: tl.constexpr,
    EVENTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One step of one sample, of the last `asked` ones."""
    gain_D, weight_OD, bias_O, mean_2, scale_2 = _load_head(
        gain_ptr, weight_ptr, bias_ptr, mean_ptr, scale_ptr, D, N, WIDTH, KINDS
    )
    n = tl.arange(0, KINDS)
    d = tl.arange(0, WIDTH)
    if EVIDENCE:
        prior_N = tl.load(prior_ptr + n, n < N, 0.0).to(tl.float32)
    wait_for_inputs(PDL)
    sample = tl.program_id(0) // asked
    first = sample * n_steps
    row = (first + n_steps - asked + tl.program_id(0) % asked).to(tl.int64)
    x_row_ptr = x_ptr + tl.program_id(0).to(tl.int64) * (Q * D)
    x_D = tl.load(x_row_ptr + d, d < D, 0.0)
    if EVIDENCE:
        said_N = _said(
            table_ptr,
            unit_ptr,
            value_ptr,
            mask_ptr,
            count_ptr,
            row - (J - 1),
            first,
            n_events,
            J,
            N,
            KINDS,
            SEEN,
            EVENTS,
        )
        share_N = _kind_shares(said_N, row - first + 1, prior_N, N, J, KINDS)
    else:
        share_N = (n == 0).to(tl.float32)
    _store_velocity(
        x_D,
        x_row_ptr,
        out_ptr + tl.program_id(0).to(tl.int64) * (2 * Q),
        share_N,
        gain_D,
        weight_OD,
        bias_O,
        mean_2,
        scale_2,
        eps,
        D,
        Q,
        WIDTH,
        KINDS,
    )


@triton.jit(do_not_specialize=["n_events"])  # type: ignore[untyped-decorator]
def _advance_movement_velocity_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    gain_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    scale_ptr,
    table_ptr,
    prior_ptr,
    unit_ptr,
    value_ptr,
    mask_ptr,
    count_ptr,
    said_ptr,
    slot_ptr,
    step_ptr,
    first_ptr,
    out_ptr,
    n_events,
    eps,
    D: tl.constexpr,
    Q: tl.constexpr,
    N: tl.constexpr,
    J: tl.constexpr,
    EVIDENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    KINDS: tl.constexpr,
    RING: tl.constexpr,
    EVENTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One stream."""
    gain_D, weight_OD, bias_O, mean_2, scale_2 = _load_head(
        gain_ptr, weight_ptr, bias_ptr, mean_ptr, scale_ptr, D, N, WIDTH, KINDS
    )
    n = tl.arange(0, KINDS)
    d = tl.arange(0, WIDTH)
    if EVIDENCE:
        prior_N = tl.load(prior_ptr + n, n < N, 0.0).to(tl.float32)
    wait_for_inputs(PDL)
    stream = tl.program_id(0).to(tl.int64)
    x_row_ptr = x_ptr + stream * (Q * D)
    x_D = tl.load(x_row_ptr + d, d < D, 0.0)
    if EVIDENCE:
        step = tl.load(step_ptr + stream).to(tl.int64)
        steps = step - tl.load(first_ptr + stream).to(tl.int64)
        ring_ptr = said_ptr + tl.load(slot_ptr + stream).to(tl.int64) * (J * N)
        # The remainder of a negative number would be negative.
        own = (step % J + J) % J
        j = tl.arange(0, RING)
        past_JN = ((j < J) & (j != own))[:, None] & (n < N)[None, :]
        ring_JN = tl.load(ring_ptr + (j[:, None] * N + n[None, :]), past_JN, 0.0)
        own_N = _said(
            table_ptr,
            unit_ptr,
            value_ptr,
            mask_ptr,
            count_ptr,
            stream,
            stream,
            n_events,
            1,
            N,
            KINDS,
            1,
            EVENTS,
        )
        tl.store(ring_ptr + own * N + n, own_N, n < N)
        said_N = tl.sum(ring_JN, 0) + own_N
        share_N = _kind_shares(said_N, steps, prior_N, N, J, KINDS)
    else:
        share_N = (n == 0).to(tl.float32)
    _store_velocity(
        x_D,
        x_row_ptr,
        out_ptr + stream * (2 * Q),
        share_N,
        gain_D,
        weight_OD,
        bias_O,
        mean_2,
        scale_2,
        eps,
        D,
        Q,
        WIDTH,
        KINDS,
    )
