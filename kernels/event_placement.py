"""Events that lie one after another, put in their places in a padded batch.

An event of bin t of its sample belongs to step t // P, where P bins are a step, and takes the first
free place of that step. Samples are in time order, so a step's events lie together: they begin
where as many events have gone by as lie before the step.

A host that has spikes as they came thus copies three columns, and spends nothing on an event. The
kernel's programs take one step each: they count the events before and in it, and move these.

Shapes: N events, B samples, S steps, E places a step.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.event_attention import EventColumns

_BLOCK = 256


class ListedEvents(NamedTuple):
    """Events of B samples, one sample after another, each in time order; of any integer types.

    Attributes:
        unit_N: units.
        bin_N: bins, counted from the sample's first.
        value_N: spike counts.
        start_B1: (B + 1,) where each sample begins, and where the last ends. What lies behind that
            is not read.
    """

    unit_N: Tensor
    bin_N: Tensor
    value_N: Tensor
    start_B1: Tensor


def place_events_reference(
    events: ListedEvents, *, steps: int, bins_per_step: int, places: int
) -> EventColumns:
    """Plain PyTorch: what the kernel must equal, but for what it leaves unwritten.

    Args:
        events: with bins in [0, steps * bins_per_step).
        steps: steps S of a sample.
        bins_per_step: bins P of a step.
        places: places E, as many as a step may have events.

    Returns:
        Columns of the events' types, zero where there is no event; phases of the bins' type.
    """
    unit_N, bin_N, value_N, start_B1 = events
    samples = len(start_B1) - 1
    index_N = torch.arange(len(unit_N), device=unit_N.device)
    sample_N = torch.searchsorted(start_B1[1:].contiguous(), index_N.to(start_B1.dtype), right=True)
    # What lies behind the last sample goes to a step behind the last, which is then cut off.
    listed_N = sample_N < samples
    step_N = torch.where(listed_N, bin_N // bins_per_step, 0)
    group_N = sample_N.clamp_max(samples) * steps + step_N
    count_G = torch.zeros(samples * steps + 1, dtype=torch.int64, device=unit_N.device)
    count_G.scatter_add_(0, group_N, torch.ones_like(group_N))
    rank_N = index_N - (count_G.cumsum(0) - count_G)[group_N]
    place_N = torch.where(listed_N, group_N * places + rank_N, samples * steps * places)

    def placed(column_N: Tensor) -> Tensor:
        padded = column_N.new_zeros(samples * steps * places + 1)
        return padded.scatter_(0, place_N, column_N)[:-1].view(samples, steps, places)

    count_BS = count_G[:-1].view(samples, steps)
    mask_BSE = torch.arange(places, device=unit_N.device) < count_BS[..., None]
    return EventColumns(
        unit_BSE=placed(unit_N),
        phase_BSE=placed(bin_N % bins_per_step),
        value_BSE=placed(value_N),
        mask_BSE=mask_BSE,
        count_BS=count_BS.to(start_B1.dtype),
    )


def place_events(
    events: ListedEvents, *, steps: int, bins_per_step: int, places: int
) -> EventColumns:
    """The form for the case at hand; arguments as the reference's."""
    form = place_events_triton if form_for(events.unit_N) == "triton" else place_events_reference
    return form(events, steps=steps, bins_per_step=bins_per_step, places=places)


def place_events_triton(
    events: ListedEvents, *, steps: int, bins_per_step: int, places: int
) -> EventColumns:
    """The Triton kernel; arguments as the reference's, columns contiguous.

    Returns:
        As the reference's, but that columns other than the mask hold anything where it is False.
    """
    unit_N, bin_N, value_N, start_B1 = events
    shape = (len(start_B1) - 1, steps, places)
    unit, phase, value = (torch.empty(shape, dtype=x.dtype, device=x.device) for x in events[:3])
    mask = torch.empty(shape, dtype=torch.bool, device=unit_N.device)
    count = torch.empty(shape[:2], dtype=start_B1.dtype, device=unit_N.device)
    if count.numel():
        _place_kernel[(count.numel(),)](
            unit_N,
            bin_N,
            value_N,
            start_B1,
            unit,
            phase,
            value,
            mask,
            count,
            steps,
            places,
            BINS=bins_per_step,
            BLOCK=min(_BLOCK, max(16, triton.next_power_of_2(places))),
            num_warps=2,
            **launch_options(unit_N),
        )
    return EventColumns(unit, phase, value, mask, count)


@triton.jit  # type: ignore[untyped-decorator]
def _place_kernel(  # type: ignore[no-untyped-def]
    unit_ptr,
    bin_ptr,
    value_ptr,
    start_ptr,
    unit_out_ptr,
    phase_out_ptr,
    value_out_ptr,
    mask_out_ptr,
    count_out_ptr,
    steps,
    places,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """One step of one sample."""
    group = tl.program_id(0)
    sample = group // steps
    first_bin = group % steps * BINS
    lane = tl.arange(0, BLOCK)
    wait_for_inputs(PDL)
    start = tl.load(start_ptr + sample)
    stop = tl.load(start_ptr + sample + 1)
    before = tl.zeros((BLOCK,), tl.int32)
    through = tl.zeros((BLOCK,), tl.int32)
    for block in range(start, stop, BLOCK):
        index = block + lane
        # Past the sample's end everything is later than the step.
        at = tl.load(bin_ptr + index, index < stop, first_bin + BINS)
        before += (at < first_bin).to(tl.int32)
        through += (at < first_bin + BINS).to(tl.int32)
    first = start + tl.sum(before)
    count = tl.sum(through) - tl.sum(before)
    tl.store(count_out_ptr + group, count)
    row = group.to(tl.int64) * places
    for block in range(0, places, BLOCK):
        rank = block + lane
        real = rank < count
        tl.store(mask_out_ptr + row + rank, real, rank < places)
        unit = tl.load(unit_ptr + first + rank, real)
        phase = tl.load(bin_ptr + first + rank, real) - first_bin
        value = tl.load(value_ptr + first + rank, real)
        tl.store(unit_out_ptr + row + rank, unit, real)
        tl.store(phase_out_ptr + row + rank, phase, real)
        tl.store(value_out_ptr + row + rank, value, real)
