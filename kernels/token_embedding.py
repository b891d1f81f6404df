"""Fused tokenizer: three gathers, their sum and the norm that follows, in one pass.

Formula, for an event (u, p, c) and tables U, P, C of width D:

    x = U[u] + P[p] + C[c]
    token = x / sqrt(mean(x^2) + eps) * gamma

The plain form writes three (E, D) gathers and a sum to memory and reads them back. The kernel
writes each token once, and the tables stay in the cache, so that writing is all the time it takes.
A warp works alone on a few events: it needs no barrier to add up a token's squares, loads 16 bytes
a lane, and has the rows of all its events under way at once.

Shapes: E events, D width of a token.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import form_for


def token_embedding_reference(
    unit: Tensor,
    phase: Tensor,
    value: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    gamma: Tensor,
    eps: float,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        unit: (...) row of the first table.
        phase: (...) row of the second.
        value: (...) row of the third.
        tables: the unit, phase and value embeddings, each (rows, D).
        gamma: (D,) the norm's gain.
        eps: added to the mean square.

    Returns:
        (..., D) tokens.
    """
    token = sum(
        (F.embedding(i, t) for i, t in zip((unit, phase, value), tables, strict=True)),
        start=torch.zeros((), device=gamma.device, dtype=gamma.dtype),
    )
    return F.rms_norm(token, gamma.shape, gamma, eps)


def token_embedding(
    unit: Tensor,
    phase: Tensor,
    value: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    gamma: Tensor,
    eps: float,
) -> Tensor:
    """The form for the case at hand: the kernel on a GPU without gradients, else the reference."""
    if form_for(gamma) == "triton":
        return token_embedding_triton(unit, phase, value, tables, gamma, eps)
    return token_embedding_reference(unit, phase, value, tables, gamma, eps)


class EmbeddingConfig(NamedTuple):
    """How the kernel cuts its work.

    Attributes:
        events: events a program; a power of two.
        warps: warps a program.
    """

    events: int
    warps: int


def embedding_config(dim: int) -> EmbeddingConfig:
    """One warp, and as many events as its registers hold beside others of its kind."""
    return EmbeddingConfig(events=min(16, max(1, 2048 // triton.next_power_of_2(dim))), warps=1)


def token_embedding_triton(
    unit: Tensor,
    phase: Tensor,
    value: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    gamma: Tensor,
    eps: float,
    *,
    config: EmbeddingConfig | None = None,
) -> Tensor:
    """The Triton kernel, without gradients.

    Args:
        unit: as token_embedding_reference's, of any integer type.
        phase: likewise.
        value: likewise.
        tables: likewise.
        gamma: likewise; its type is the tokens'.
        eps: likewise.
        config: how to cut the work; embedding_config's if not given.

    Returns:
        (..., D) tokens.
    """
    dim = gamma.shape[0]
    config = config or embedding_config(dim)
    out = torch.empty((*unit.shape, dim), device=gamma.device, dtype=gamma.dtype)
    n_events = unit.numel()
    if n_events:
        _token_embedding_kernel[(triton.cdiv(n_events, config.events),)](
            unit.contiguous(),
            phase.contiguous(),
            value.contiguous(),
            *(table.contiguous() for table in tables),
            gamma.contiguous(),
            out,
            n_events,
            eps,
            D=dim,
            WIDTH=triton.next_power_of_2(dim),
            EVENTS=config.events,
            num_warps=config.warps,
        )
    return out


# The number of events must not make a new kernel: it has no bearing on alignment.
@triton.jit(do_not_specialize=["n_events"])  # type: ignore[untyped-decorator]
def _token_embedding_kernel(  # type: ignore[no-untyped-def]
    unit_ptr,
    phase_ptr,
    value_ptr,
    unit_table_ptr,
    phase_table_ptr,
    value_table_ptr,
    gamma_ptr,
    out_ptr,
    n_events,
    eps,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    EVENTS: tl.constexpr,
):
    event_E = tl.program_id(0).to(tl.int64) * EVENTS + tl.arange(0, EVENTS)
    live_E = event_E < n_events
    unit_E = tl.load(unit_ptr + event_E, live_E, 0).to(tl.int64)
    phase_E = tl.load(phase_ptr + event_E, live_E, 0).to(tl.int64)
    value_E = tl.load(value_ptr + event_E, live_E, 0).to(tl.int64)
    column_D = tl.arange(0, WIDTH)
    inside_D = column_D < D
    inside_ED = live_E[:, None] & inside_D[None, :]
    unit_ED = tl.load(unit_table_ptr + (unit_E * D)[:, None] + column_D, inside_ED, 0.0)
    phase_ED = tl.load(phase_table_ptr + (phase_E * D)[:, None] + column_D, inside_ED, 0.0)
    value_ED = tl.load(value_table_ptr + (value_E * D)[:, None] + column_D, inside_ED, 0.0)
    gamma_D = tl.load(gamma_ptr + column_D, inside_D, 0.0).to(tl.float32)
    x_ED = unit_ED.to(tl.float32) + phase_ED.to(tl.float32) + value_ED.to(tl.float32)
    scale_E = 1.0 / tl.sqrt(tl.sum(x_ED * x_ED, 1) / D + eps)
    token_ED = x_ED * scale_E[:, None] * gamma_D[None, :]
    out_ED = out_ptr + (event_E * D)[:, None] + column_D
    tl.store(out_ED, token_ED.to(out_ptr.dtype.element_ty), inside_ED)
