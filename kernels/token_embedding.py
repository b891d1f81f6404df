"""Fused tokenizer: three gathers, their sum and the norm that follows, in one pass.

Formula, for an event (u, p, c) and tables U, P, C of width D:

    x = U[u] + P[p] + C[c]
    token = x / sqrt(mean(x^2) + eps) * gamma

The plain form writes three (E, D) gathers and a sum to memory and reads them back; the kernel reads
each table row once and writes each token once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F


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
    if gamma.is_cuda and not torch.is_grad_enabled():
        return token_embedding_triton(unit, phase, value, tables, gamma, eps)
    return token_embedding_reference(unit, phase, value, tables, gamma, eps)


def token_embedding_triton(
    unit: Tensor,
    phase: Tensor,
    value: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    gamma: Tensor,
    eps: float,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients."""
    dim = gamma.shape[0]
    out = torch.empty((*unit.shape, dim), device=gamma.device, dtype=gamma.dtype)
    if unit.numel():
        _token_embedding_kernel[(unit.numel(),)](
            unit.contiguous(),
            phase.contiguous(),
            value.contiguous(),
            *tables,
            gamma,
            out,
            eps,
            D=dim,
            BLOCK=triton.next_power_of_2(dim),
        )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _token_embedding_kernel(  # type: ignore[no-untyped-def]
    unit_ptr,
    phase_ptr,
    value_ptr,
    unit_table_ptr,
    phase_table_ptr,
    value_table_ptr,
    gamma_ptr,
    out_ptr,
    eps,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    event = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < D
    unit_row = unit_table_ptr + tl.load(unit_ptr + event) * D + column
    phase_row = phase_table_ptr + tl.load(phase_ptr + event) * D + column
    value_row = value_table_ptr + tl.load(value_ptr + event) * D + column
    x = tl.load(unit_row, inside, 0.0).to(tl.float32)
    x += tl.load(phase_row, inside, 0.0).to(tl.float32)
    x += tl.load(value_row, inside, 0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x) / D + eps)
    gamma = tl.load(gamma_ptr + column, inside, 0.0).to(tl.float32)
    tl.store(out_ptr + event * D + column, x * scale * gamma, inside)
