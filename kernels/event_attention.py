"""Attention of each step's latents to the events of the last few steps.

Formula, for one head, latent l of step s and the events e of steps s - J + 1 .. s:

    score = q_l . k_e / sqrt(K) + bias
    sigmoid:  out_l = sum_e sigmoid(score) v_e     (keeps the firing rate; additive over events)
    softmax:  out_l = sum_e softmax_e(score) v_e   (averages the firing rate away)

Without events either one is zero: silence is a defined input.

A token is one of few: it is fixed by its unit, phase and count, which number it as a `row`. The
queries are the same at every step, and time enters as the lag j of the event's step behind the
query's. So every weight there can be is in a table, (rows, lags, latents) a head, and what is left
to do for an event is to look up its weights and its value. A sum over events is also a sum over
steps, so a stream adds a step's share to the sums of the steps that will see it, and forgets it.

Source: sigmoid weights, Ramapuram et al. 2024, arXiv:2409.04431.

Shapes: R rows, H heads, J lags, L latents, K width of a head, B samples, S steps, E events a step.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Weighting = Literal["sigmoid", "softmax"]

# A softmax weight never vanishes beside the largest one that any event could have.
LEAST_EXPONENT = -60.0


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
