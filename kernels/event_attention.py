"""Attention of each step's latents to the events of the last few steps.

Formula, for one head, latent l of step s and the events e of steps s - J + 1 .. s:

    score = q_l . k_e / sqrt(K) + bias
    sigmoid:  out_l = sum_e sigmoid(score) v_e     (keeps the firing rate; additive over events)
    softmax:  out_l = sum_e softmax_e(score) v_e   (averages the firing rate away)

Without events either one is zero: silence is a defined input.

A token is one of few: it is fixed by its unit, phase and count, which number it as a `row`:

    row = (unit * phases + phase) * values + min(max(count, 0), values - 1)

The queries are the same at every step, and time enters as the lag j of the event's step behind the
query's. So every weight there can be is in a table, (rows, lags, latents) a head, and what is left
to do for an event is to look up its weights and its value. A sum over events is also a sum over
steps, so a stream adds a step's share to the sums of the steps that will see it, and forgets it.

`event_reads` and `event_step` are that look-up, offline and in a stream. The plain form writes
every event's weights and values to memory, multiplies them into the sums of every (step, lag), and
adds those up. The kernels keep sums on the chip: a program takes a head of a few neighbouring
steps, walks the events that any of them sees as one list without gaps, and for a block of events
gathers weights and values into one matrix product. An event's weights to (step, latent) pairs are
one contiguous piece of its row, shifted by its lag, so that it is gathered once for all of these
steps. Time follows the number of events; padding is never visited. The kernels number the rows
themselves, a block ahead of the gathers, and normalise, so that each is one launch. The stream's
kernel moves a step's sums once in and once out: it neither loads those that no event has added to
yet, nor stores those that no later step will see.

Source: sigmoid weights, Ramapuram et al. 2024, arXiv:2409.04431.

Shapes: R rows, H heads, J lags, L latents, K width of a head, B samples, S steps, E events a step,
P slots of a stream; in kernels M pairs of a step (or lag) and a latent.
"""

import math
from typing import Literal, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.matmul_tile import product_type

Weighting = Literal["sigmoid", "softmax"]

# A softmax weight never vanishes beside the largest one that any event could have.
LEAST_EXPONENT = -60.0


class EventColumns(NamedTuple):
    """Events as they come, grouped by step and padded to E places a step; of any integer types.

    Attributes:
        unit_BSE: units.
        phase_BSE: places in time within the step.
        value_BSE: spike counts.
        mask_BSE: bool, True where an event is real; there may be holes among a step's events.
        count_BS: places of each step, the first ones, that hold its events and any holes.
    """

    unit_BSE: Tensor
    phase_BSE: Tensor
    value_BSE: Tensor
    mask_BSE: Tensor
    count_BS: Tensor


class EventTables(NamedTuple):
    """What an event can contribute.

    Attributes:
        weights_RHJL: weight of each row to each latent, by lag; not normalised under softmax.
        values_RHK: value of each row; under softmax K includes a last column of ones, whose sum is
            the normaliser.
    """

    weights_RHJL: Tensor
    values_RHK: Tensor


def event_tables(
    q_JLHK: Tensor, k_RHK: Tensor, v_RHK: Tensor, bias_H: Tensor, weighting: Weighting
) -> EventTables:
    """All weights and values there can be.

    Args:
        q_JLHK: queries of the latents, turned to each lag.
        k_RHK: keys of the rows.
        v_RHK: values of the rows.
        bias_H: added to the scores of each head.
        weighting: "sigmoid" or "softmax".
    """
    scores = torch.einsum("jlhk,rhk->rhjl", q_JLHK / math.sqrt(q_JLHK.shape[-1]), k_RHK)
    scores = scores + bias_H[:, None, None]
    if weighting == "sigmoid":
        return EventTables(scores.sigmoid(), v_RHK)
    exponent = scores - scores.amax((0, 2), keepdim=True)
    return EventTables(exponent.clamp_min(LEAST_EXPONENT).exp(), F.pad(v_RHK, (0, 1), value=1.0))


def event_rows(events: EventColumns, places: tuple[int, int]) -> Tensor:
    """(B, S, E) rows of the events in the tables.

    Args:
        events: the events.
        places: how many phases there are, and how many values; larger values share the last.
    """
    n_phases, n_values = places
    place_BSE = events.unit_BSE.long() * n_phases + events.phase_BSE
    return place_BSE * n_values + events.value_BSE.clamp(0, n_values - 1)


def event_sums(row_BSE: Tensor, mask_BSE: Tensor, tables: EventTables) -> Tensor:
    """(B, S, J, H, L, K) what each step's events give to the step itself and the J - 1 after it.

    Args:
        row_BSE: rows of the events, grouped by step and padded to E a step.
        mask_BSE: True where an event is real.
        tables: from event_tables.
    """
    n_rows, n_heads, n_lags, _ = tables.weights_RHJL.shape
    row = row_BSE.masked_fill(~mask_BSE, n_rows)

    def look_up(table: Tensor) -> Tensor:
        # One more row, of zeros and without a gradient, for what is not there.
        padded = F.pad(table.flatten(1), (0, 0, 0, 1))
        found: Tensor = F.embedding(row, padded, padding_idx=n_rows).unflatten(-1, (n_heads, -1))
        return found

    w, v = look_up(tables.weights_RHJL), look_up(tables.values_RHK)
    sums: Tensor = torch.einsum("bsehj,bsehk->bshjk", w, v).unflatten(3, (n_lags, -1))
    return sums.transpose(2, 3)


def sum_lags(sums_BSJHLK: Tensor) -> Tensor:
    """(B, S, H, L, K) what each step has from its own events and those of the J - 1 before it."""
    n_steps, n_lags = sums_BSJHLK.shape[1:3]
    total = sums_BSJHLK[:, :, 0]
    for lag in range(1, min(n_lags, n_steps)):
        # Before the first step lies nothing.
        total = total + F.pad(sums_BSJHLK[:, :-lag, lag], (0, 0) * 3 + (lag, 0))
    return total


def normalise(sums: Tensor, weighting: Weighting) -> Tensor:
    """(..., K) what is read, from sums over all events that are seen."""
    if weighting == "sigmoid":
        return sums
    read, total = sums[..., :-1], sums[..., -1:]
    return read / total.clamp_min(torch.finfo(sums.dtype).tiny)


def pack(tables: EventTables, dtype: torch.dtype) -> EventTables:
    """The same tables in the layout that the kernels read fastest, for tables that are kept.

    Args:
        tables: from event_tables.
        dtype: type of the new tables.
    """
    v_RHK = tables.values_RHK
    width = v_RHK.shape[-1]
    # Rows begin on 32 bytes, also where softmax's column of ones makes their width odd.
    wide = v_RHK.new_zeros((*v_RHK.shape[:-1], -(-width // 16) * 16), dtype=dtype)
    wide[..., :width] = v_RHK
    weights_RHJL = torch.empty(tables.weights_RHJL.shape, dtype=dtype, device=v_RHK.device)
    return EventTables(weights_RHJL.copy_(tables.weights_RHJL), wide[..., :width])


class EventConfig(NamedTuple):
    """How a kernel cuts its work.

    Attributes:
        pairs: pairs of a step (or lag) and a latent that a program sums; a power of two >= 16.
        events: events a block; a power of two >= 16.
        warps: warps a program.
        stages: depth of the pipeline of gathers.
    """

    pairs: int
    events: int
    warps: int
    stages: int


# Fewer programs leave some of an H200's 132 multiprocessors idle.
ENOUGH_PROGRAMS = 256


def reads_config(
    n_samples: int, n_steps: int, n_heads: int, n_latents: int, dtype: torch.dtype
) -> EventConfig:
    """Many steps a program share gathers; few steps a program make more programs."""
    # Products of float32 do not run on tensor cores, and hold their operands in registers.
    if dtype != torch.bfloat16:
        return EventConfig(pairs=16, events=16, warps=4, stages=1)
    programs = n_samples * n_heads * triton.cdiv(n_steps, max(1, 64 // n_latents))
    # Blocks load ahead by themselves: a pipeline would only take their room.
    if programs >= ENOUGH_PROGRAMS:
        return EventConfig(pairs=64, events=64, warps=8, stages=1)
    # What counts is to have all gathers of a program in flight at once.
    return EventConfig(pairs=32, events=256, warps=8, stages=1)


def step_config(
    n_streams: int, n_heads: int, n_lags: int, n_latents: int, dtype: torch.dtype
) -> EventConfig:
    """As reads_config; a program sums some lags of one stream."""
    half = dtype == torch.bfloat16
    pairs = 64 if half else 32
    while pairs > 16 and n_streams * n_heads * triton.cdiv(n_lags * n_latents, pairs) < (
        ENOUGH_PROGRAMS
    ):
        pairs //= 2
    # A step's events are often one block: there is nothing to pipeline.
    return EventConfig(pairs, events=32 if half else 16, warps=4, stages=1)


def event_reads_reference(
    events: EventColumns,
    places: tuple[int, int],
    tables: EventTables,
    weighting: Weighting,
) -> Tensor:
    """Plain PyTorch: what each step reads from the events of its last J steps.

    Args:
        events: the events, of which this form minds the mask alone.
        places: how many phases there are, and how many values; larger values share the last.
        tables: from event_tables, bfloat16 or float32 for the kernel.
        weighting: the tables' "sigmoid" or "softmax".

    Returns:
        (B, S, H, L, K), of the tables' type; zero where a step sees no event.
    """
    sums = event_sums(event_rows(events, places), events.mask_BSE, tables)
    return normalise(sum_lags(sums), weighting)


def event_reads(
    events: EventColumns,
    places: tuple[int, int],
    tables: EventTables,
    weighting: Weighting,
) -> Tensor:
    """The form for the case at hand; arguments as event_reads_reference's."""
    triton_form = form_for(tables.weights_RHJL) == "triton"
    form = event_reads_triton if triton_form else event_reads_reference
    return form(events, places, tables, weighting)


def event_reads_triton(
    events: EventColumns,
    places: tuple[int, int],
    tables: EventTables,
    weighting: Weighting,
    *,
    config: EventConfig | None = None,
) -> Tensor:
    """The Triton kernel, without gradients; sums are float32.

    Args:
        events: as event_reads_reference's, with fewer than 2^31 places a sample.
        places: likewise.
        tables: likewise; packed ones are read fastest.
        weighting: likewise.
        config: how to cut the work; reads_config's if not given.

    Returns:
        (B, S, H, L, K), in memory as (B, S, L, H, K): a step's latents need no copy.
    """
    weights, values = _readable(tables)
    n_samples, n_steps, n_events = events.unit_BSE.shape
    _, n_heads, n_lags, n_latents = weights.shape
    softmax = weighting == "softmax"
    width = values.shape[-1] - softmax
    config = config or reads_config(n_samples, n_steps, n_heads, n_latents, weights.dtype)
    out_BSLHK = torch.empty(
        (n_samples, n_steps, n_latents, n_heads, width),
        dtype=weights.dtype,
        device=weights.device,
    )
    if out_BSLHK.numel():
        steps = max(1, config.pairs // n_latents)
        groups = max(1, triton.cdiv(n_steps, steps))
        _event_reads_kernel[(n_samples * groups, n_heads)](
            *(column.contiguous() for column in events),
            weights,
            values,
            out_BSLHK,
            n_steps,
            n_events,
            PHASES=places[0],
            VALUES=places[1],
            H=n_heads,
            J=n_lags,
            L=n_latents,
            K=width,
            VALUE_ROW=values.stride(0),
            VALUE_HEAD=values.stride(1),
            INDEX=_index(weights, values),
            PRODUCT=product_type(weights),
            LAST=softmax,
            STEPS=steps,
            SEEN=triton.next_power_of_2(steps + n_lags - 1),
            PAIRS=max(config.pairs, triton.next_power_of_2(n_latents)),
            WIDTH=max(16, triton.next_power_of_2(width)),
            EVENTS=config.events,
            STAGES=config.stages,
            num_warps=config.warps,
            **launch_options(weights),
        )
    return out_BSLHK.transpose(2, 3)


def event_step_reference(
    sums_PJHLK: Tensor,
    slot_B: Tensor,
    step_B: Tensor,
    events: EventColumns,
    places: tuple[int, int],
    tables: EventTables,
    weighting: Weighting,
) -> Tensor:
    """Plain PyTorch: what one step of each stream reads; its events stay for the J - 1 after it.

    Args:
        sums_PJHLK: float32 sums of every slot, zero where a stream begins, changed in place: those
            of the step numbered n are at n % J, from the step n - J + 1 on. They are not
            normalised; under softmax K includes the normaliser.
        slot_B: the slots to advance, all different, save for a spare one: what that one holds and
            reads is undefined.
        step_B: number of each slot's step, one more than at the call before.
        events: the step's events (S = 1), of which this form minds the mask alone.
        places: how many phases there are, and how many values; larger values share the last.
        tables: from event_tables, bfloat16 or float32 for the kernel.
        weighting: the tables' "sigmoid" or "softmax".

    Returns:
        (B, H, L, K), of the tables' type; zero where the step sees no event.
    """
    given_BJHLK = event_sums(event_rows(events, places), events.mask_BSE, tables)[:, 0]
    n_lags = given_BJHLK.shape[1]
    index_BJ = (step_B[:, None] + torch.arange(n_lags, device=step_B.device)) % n_lags
    slot_B1 = slot_B[:, None]
    # No step has added to the sums of the last lag yet: what lies there is of a step gone by.
    held = sums_PJHLK[slot_B1, index_BJ[:, :-1]]
    sums = given_BJHLK + F.pad(held, (0, 0) * 3 + (0, 1))
    sums_PJHLK[slot_B1, index_BJ[:, 1:]] = sums[:, 1:]
    return normalise(sums[:, 0], weighting).to(tables.weights_RHJL.dtype)


def event_step(
    sums_PJHLK: Tensor,
    slot_B: Tensor,
    step_B: Tensor,
    events: EventColumns,
    places: tuple[int, int],
    tables: EventTables,
    weighting: Weighting,
) -> Tensor:
    """The form for the case at hand; arguments as event_step_reference's."""
    form = event_step_triton if form_for(sums_PJHLK) == "triton" else event_step_reference
    return form(sums_PJHLK, slot_B, step_B, events, places, tables, weighting)


def event_step_triton(
    sums_PJHLK: Tensor,
    slot_B: Tensor,
    step_B: Tensor,
    events: EventColumns,
    places: tuple[int, int],
    tables: EventTables,
    weighting: Weighting,
    *,
    config: EventConfig | None = None,
) -> Tensor:
    """The Triton kernel, without gradients.

    Args:
        sums_PJHLK: as event_step_reference's, contiguous.
        slot_B: likewise.
        step_B: likewise.
        events: likewise.
        places: likewise.
        tables: likewise; packed ones are read fastest.
        weighting: likewise.
        config: how to cut the work; step_config's if not given.

    Returns:
        (B, H, L, K), in memory as (B, L, H, K): a step's latents need no copy.

    Raises:
        ValueError: sums that are not contiguous, or not of the tables' shape.
    """
    weights, values = _readable(tables)
    n_streams, _, n_events = events.unit_BSE.shape
    _, n_heads, n_lags, n_latents = weights.shape
    softmax = weighting == "softmax"
    width = values.shape[-1] - softmax
    expected = (n_lags, n_heads, n_latents, values.shape[-1])
    if sums_PJHLK.shape[1:] != expected or not sums_PJHLK.is_contiguous():
        raise ValueError(f"sums {tuple(sums_PJHLK.shape)}, expected contiguous (P, *{expected})")
    config = config or step_config(n_streams, n_heads, n_lags, n_latents, weights.dtype)
    out_BLHK = torch.empty(
        (n_streams, n_latents, n_heads, width), dtype=weights.dtype, device=weights.device
    )
    if out_BLHK.numel():
        _event_step_kernel[(n_streams, n_heads, triton.cdiv(n_lags * n_latents, config.pairs))](
            sums_PJHLK,
            slot_B.contiguous(),
            step_B.contiguous(),
            *(column.contiguous() for column in events),
            weights,
            values,
            out_BLHK,
            n_events,
            PHASES=places[0],
            VALUES=places[1],
            H=n_heads,
            J=n_lags,
            L=n_latents,
            K=width,
            VALUE_ROW=values.stride(0),
            VALUE_HEAD=values.stride(1),
            INDEX=_index(weights, values),
            PRODUCT=product_type(weights),
            LAST=softmax,
            PAIRS=config.pairs,
            WIDTH=max(16, triton.next_power_of_2(width)),
            EVENTS=config.events,
            STAGES=config.stages,
            num_warps=config.warps,
            **launch_options(weights),
        )
    return out_BLHK.transpose(1, 2)


def _readable(tables: EventTables) -> EventTables:
    """Tables as kernels can read them: themselves if packed, else copies where need be."""
    values = tables.values_RHK
    return EventTables(
        tables.weights_RHJL.contiguous(), values if values.stride(-1) == 1 else values.contiguous()
    )


def _index(weights: Tensor, values: Tensor) -> tl.dtype:
    """The type that counts places in the tables."""
    farthest = max(weights.numel(), values.shape[0] * values.stride(0))
    return tl.int32 if farthest < 2**31 else tl.int64


@triton.jit  # type: ignore[untyped-decorator]
def _load_rows(  # type: ignore[no-untyped-def]
    unit_ptr,
    phase_ptr,
    value_ptr,
    mask_ptr,
    place_E,
    inside_E,
    PHASES: tl.constexpr,
    VALUES: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Rows of the events at some places, and which of them are real."""
    real_E = tl.load(mask_ptr + place_E, inside_E, 0)
    unit_E = tl.load(unit_ptr + place_E, inside_E, 0).to(INDEX)
    phase_E = tl.load(phase_ptr + place_E, inside_E, 0).to(INDEX)
    # Clamped in a type that holds any of the column's.
    value_E = tl.load(value_ptr + place_E, inside_E, 0).to(tl.int64)
    value_E = tl.minimum(tl.maximum(value_E, 0), VALUES - 1).to(INDEX)
    return (unit_E * PHASES + phase_E) * VALUES + value_E, inside_E & (real_E != 0)


@triton.jit  # type: ignore[untyped-decorator]
def _add_events(  # type: ignore[no-untyped-def]
    sums_MK,
    last_M,
    row_E,
    live_E,
    weight_EM,
    head,
    weight_ptr,
    table_ptr,
    H: tl.constexpr,
    J: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    VALUE_ROW: tl.constexpr,
    VALUE_HEAD: tl.constexpr,
    PRODUCT: tl.constexpr,
    LAST: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Adds a block's events to the sums; weight_EM is the place in the (J, L) weights of a row."""
    k = tl.arange(0, WIDTH)
    weight_at_E = (row_E * H + head) * (J * L)
    value_at_E = row_E * VALUE_ROW + head * VALUE_HEAD
    seen_EM = live_E[:, None] & (weight_EM >= 0) & (weight_EM < J * L)
    w_EM = tl.load(weight_ptr + (weight_at_E[:, None] + weight_EM), seen_EM, 0.0)
    inside_EK = live_E[:, None] & (k < K)[None, :]
    v_EK = tl.load(table_ptr + (value_at_E[:, None] + k[None, :]), inside_EK, 0.0)
    w_ME = tl.trans(w_EM.to(PRODUCT))
    sums_MK = tl.dot(w_ME, v_EK.to(PRODUCT), sums_MK, input_precision="ieee")
    if LAST:
        last_E = tl.load(table_ptr + value_at_E + K, live_E, 0.0).to(tl.float32)
        last_M += tl.sum(w_EM.to(tl.float32) * last_E[:, None], 0)
    return sums_MK, last_M


@triton.jit  # type: ignore[untyped-decorator]
def _normalised(sums_MK, last_M, LAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """What is read; without an event there is no weight, and zero is read."""
    if LAST:
        sums_MK = sums_MK / tl.where(last_M > 0, last_M, 1.0)[:, None]
    return sums_MK


@triton.jit
def _listed(event_E, end_S, n_seen, n_events):  # type: ignore[no-untyped-def]
    """Of events of a list in which those of the i-th step end at end_S[i]: i, place, existence."""
    over_ES = event_E[:, None] >= end_S[None, :]
    seen_E = tl.sum(over_ES.to(tl.int32), 1)
    start_E = tl.max(tl.where(over_ES, end_S[None, :], 0), 1)
    return seen_E, seen_E * n_events + (event_E - start_E), event_E < n_seen


# Sizes that vary from call to call must not make new kernels: they have no bearing on alignment.
@triton.jit(do_not_specialize=["n_steps", "n_events"])  # type: ignore[untyped-decorator]
def _event_reads_kernel(  # type: ignore[no-untyped-def]
    unit_ptr,
    phase_ptr,
    value_ptr,
    mask_ptr,
    count_ptr,
    weight_ptr,
    table_ptr,
    out_ptr,
    n_steps,
    n_events,
    PHASES: tl.constexpr,
    VALUES: tl.constexpr,
    H: tl.constexpr,
    J: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    VALUE_ROW: tl.constexpr,
    VALUE_HEAD: tl.constexpr,
    INDEX: tl.constexpr,
    PRODUCT: tl.constexpr,
    LAST: tl.constexpr,
    STEPS: tl.constexpr,
    SEEN: tl.constexpr,
    PAIRS: tl.constexpr,
    WIDTH: tl.constexpr,
    EVENTS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    # One head of the steps first .. first + STEPS - 1, which see steps from first - J + 1 on.
    n_groups = tl.maximum(tl.cdiv(n_steps, STEPS), 1)
    sample = (tl.program_id(0) // n_groups).to(tl.int64)
    first = (tl.program_id(0) % n_groups) * STEPS
    head = tl.program_id(1)
    oldest = first - (J - 1)
    wait_for_inputs(PDL)

    # The seen steps' events as one list: those of the i-th end at end_S[i].
    i = tl.arange(0, SEEN)
    step_S = oldest + i
    exists_S = (i < STEPS + J - 1) & (step_S >= 0) & (step_S < n_steps)
    count_S = tl.load(count_ptr + sample * n_steps + step_S, exists_S, 0).to(tl.int32)
    end_S = tl.sum(tl.where(i[None, :] <= i[:, None], count_S[None, :], 0), 1)
    n_seen = tl.sum(count_S, 0)

    # From here on a place is one of the sample's, counted from the oldest step's first.
    start = (sample * n_steps + oldest) * n_events
    unit_ptr += start
    phase_ptr += start
    value_ptr += start
    mask_ptr += start
    event_E = tl.arange(0, EVENTS)
    seen_E, place_E, inside_E = _listed(event_E, end_S, n_seen, n_events)
    row_E, live_E = _load_rows(
        unit_ptr, phase_ptr, value_ptr, mask_ptr, place_E, inside_E, PHASES, VALUES, INDEX
    )

    pair = tl.arange(0, PAIRS)
    sums_MK = tl.zeros((PAIRS, WIDTH), tl.float32)
    last_M = tl.zeros((PAIRS,), tl.float32)
    for begin in tl.range(0, n_seen, EVENTS, num_stages=STAGES):
        # The next block's rows come while this block's weights and values are gathered.
        next_E, place_E, inside_E = _listed(begin + EVENTS + event_E, end_S, n_seen, n_events)
        next_row_E, next_live_E = _load_rows(
            unit_ptr, phase_ptr, value_ptr, mask_ptr, place_E, inside_E, PHASES, VALUES, INDEX
        )
        # A step's pairs lie L apart, and so do the weights of one lag and the next.
        weight_EM = ((J - 1 - seen_E) * L)[:, None] + pair[None, :]
        sums_MK, last_M = _add_events(
            sums_MK,
            last_M,
            row_E,
            live_E,
            weight_EM,
            head,
            weight_ptr,
            table_ptr,
            H,
            J,
            L,
            K,
            VALUE_ROW,
            VALUE_HEAD,
            PRODUCT,
            LAST,
            WIDTH,
        )
        seen_E, row_E, live_E = next_E, next_row_E, next_live_E

    k = tl.arange(0, WIDTH)
    inside_M = (pair < STEPS * L) & (first * L + pair < n_steps * L)
    out_ptr += (sample * n_steps * L) * (H * K) + head * K
    out_M = ((first * L).to(tl.int64) + pair) * (H * K)
    tl.store(
        out_ptr + (out_M[:, None] + k[None, :]),
        _normalised(sums_MK, last_M, LAST).to(out_ptr.dtype.element_ty),
        inside_M[:, None] & (k < K)[None, :],
    )


@triton.jit(do_not_specialize=["n_events"])  # type: ignore[untyped-decorator]
def _event_step_kernel(  # type: ignore[no-untyped-def]
    sums_ptr,
    slot_ptr,
    step_ptr,
    unit_ptr,
    phase_ptr,
    value_ptr,
    mask_ptr,
    count_ptr,
    weight_ptr,
    table_ptr,
    out_ptr,
    n_events,
    PHASES: tl.constexpr,
    VALUES: tl.constexpr,
    H: tl.constexpr,
    J: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    VALUE_ROW: tl.constexpr,
    VALUE_HEAD: tl.constexpr,
    INDEX: tl.constexpr,
    PRODUCT: tl.constexpr,
    LAST: tl.constexpr,
    PAIRS: tl.constexpr,
    WIDTH: tl.constexpr,
    EVENTS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    # One head and some (lag, latent) pairs of one stream.
    stream = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    pair = tl.program_id(2) * PAIRS + tl.arange(0, PAIRS)
    k = tl.arange(0, WIDTH)
    event_E = tl.arange(0, EVENTS)
    columns = K + 1 if LAST else K
    wait_for_inputs(PDL)

    slot = tl.load(slot_ptr + stream).to(tl.int64)
    step = tl.load(step_ptr + stream)
    n_live = tl.load(count_ptr + stream).to(tl.int32)
    # Asked for without waiting for their number.
    start = stream * n_events
    unit_ptr += start
    phase_ptr += start
    value_ptr += start
    mask_ptr += start
    row_E, live_E = _load_rows(
        unit_ptr, phase_ptr, value_ptr, mask_ptr, event_E, event_E < n_events, PHASES, VALUES, INDEX
    )

    # A remainder has its dividend's sign here.
    step = ((step % J + J) % J).to(tl.int32)
    lag_M, latent_M = pair // L, pair % L
    ring_M = (((slot * J + (step + lag_M) % J) * H + head) * L + latent_M) * columns
    ring_MK = sums_ptr + (ring_M[:, None] + k[None, :])
    inside_K = (k < K)[None, :]
    # No step has added to the sums of the last lag yet: what lies there is of a step gone by.
    held_M = lag_M < J - 1
    # Asked for first, so that they arrive while the events are gathered.
    held_MK = tl.load(ring_MK, held_M[:, None] & inside_K, 0.0)
    if LAST:
        held_last_M = tl.load(sums_ptr + ring_M + K, held_M, 0.0)

    sums_MK = tl.zeros((PAIRS, WIDTH), tl.float32)
    last_M = tl.zeros((PAIRS,), tl.float32)
    for begin in tl.range(0, n_live, EVENTS, num_stages=STAGES):
        place_E = begin + EVENTS + event_E
        next_row_E, next_live_E = _load_rows(
            unit_ptr,
            phase_ptr,
            value_ptr,
            mask_ptr,
            place_E,
            place_E < n_live,
            PHASES,
            VALUES,
            INDEX,
        )
        weight_EM = tl.zeros((EVENTS, 1), tl.int32) + pair[None, :]
        sums_MK, last_M = _add_events(
            sums_MK,
            last_M,
            row_E,
            live_E,
            weight_EM,
            head,
            weight_ptr,
            table_ptr,
            H,
            J,
            L,
            K,
            VALUE_ROW,
            VALUE_HEAD,
            PRODUCT,
            LAST,
            WIDTH,
        )
        row_E, live_E = next_row_E, next_live_E
    sums_MK += held_MK

    later_M = (lag_M > 0) & (lag_M < J)
    tl.store(ring_MK, sums_MK, later_M[:, None] & inside_K)
    if LAST:
        last_M += held_last_M
        tl.store(sums_ptr + ring_M + K, last_M, later_M)
    out_M = ((stream * L + latent_M) * H + head) * K
    tl.store(
        out_ptr + (out_M[:, None] + k[None, :]),
        _normalised(sums_MK, last_M, LAST).to(out_ptr.dtype.element_ty),
        (lag_M == 0)[:, None] & inside_K,
    )
