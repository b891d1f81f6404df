"""Softmax attention among latents, causal in steps and limited to a window of steps.

Formula: a latent of step s attends every latent of steps s - window + 1 .. s, its own included:

    out = softmax(q k^T / sqrt(K)) v over those keys,

with queries and keys turned first (kernels.rotary) in the rotary form.

The plain form's blocks of `window` queries see their own and the previous block's keys, so the
cost is linear in the length of the session (Beltagy et al. 2020, "Longformer", arXiv:2004.05150).
It writes turned queries and keys, padded copies of blocks, and a mask. The kernel reads q, k and v
in place, whatever their strides, turns them in registers, visits only tiles of keys inside the
window, and never holds scores in memory (Dao 2023, "FlashAttention-2", arXiv:2307.08691).

Shapes: B samples, S steps, M queries a step, L keys a step, H heads of width K; a row is one query
or key of one step.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import form_for
from kernels.rotary import rotate

Phases = tuple[Tensor, Tensor]

LOG2_E = 1.4426950408889634


class WindowConfig(NamedTuple):
    """How the kernel cuts its work.

    Attributes:
        block_rows: query rows a program, a power of two, 16 at least.
        block_keys: key rows a tile, alike.
        num_warps: warps a program.
        num_stages: tiles in flight.
    """

    block_rows: int
    block_keys: int
    num_warps: int
    num_stages: int


def window_attention(q_BSMHK: Tensor, k_BSLHK: Tensor, v_BSLHK: Tensor, *, window: int) -> Tensor:
    """Reference form: dense attention inside blocks.

    Args:
        q_BSMHK: M queries at each of S steps.
        k_BSLHK: L keys at each step.
        v_BSLHK: L values at each step.
        window: steps that a query sees, its own included.

    Returns:
        (B, S, M, H, K).
    """
    n_batch, n_steps, n_query, n_heads, head_dim = q_BSMHK.shape
    n_key = k_BSLHK.shape[2]
    block = min(window, n_steps)
    n_blocks = -(-n_steps // block)
    tail = n_blocks * block - n_steps

    def blocks(x: Tensor, lead: int) -> Tensor:
        x = F.pad(x, (0, 0) * 3 + (lead, tail))
        blocked: Tensor = x.unflatten(1, (-1, block))
        return blocked

    q = blocks(q_BSMHK, 0)
    if n_blocks == 1:
        k, v = blocks(k_BSLHK, 0), blocks(v_BSLHK, 0)
    else:
        k, v = (blocks(x, block) for x in (k_BSLHK, v_BSLHK))
        k, v = (torch.cat((x[:, :-1], x[:, 1:]), 2) for x in (k, v))
    mask = _block_mask(block, n_blocks, window, q.device)
    mask = mask.repeat_interleave(n_query, 1).repeat_interleave(n_key, 2)
    # Blocks become samples: with more than four dimensions PyTorch has no fused attention.
    q, k, v = (x.flatten(2, 3).flatten(0, 1).transpose(1, 2) for x in (q, k, v))
    mask = mask.repeat(n_batch, 1, 1)[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
    out = out.reshape(n_batch, n_blocks * block, n_query, n_heads, head_dim)
    return out[:, :n_steps]


def rotary_window_attention_reference(
    q_BSMHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    q_phases: Phases,
    k_phases: Phases,
    *,
    window: int,
) -> Tensor:
    """Plain PyTorch: what the kernel must equal.

    Args:
        q_BSMHK: M queries at each of S steps, not yet turned.
        k_BSLHK: L keys at each step, not yet turned.
        v_BSLHK: L values at each step.
        q_phases: the queries' cos and sin from kernels.rotary, (B or 1, S, M or 1, K / 2).
        k_phases: the keys', (B or 1, S, L or 1, K / 2).
        window: steps that a query sees, its own included.

    Returns:
        (B, S, M, H, K).
    """
    q, k = rotate(q_BSMHK, q_phases), rotate(k_BSLHK, k_phases)
    return window_attention(q, k, v_BSLHK, window=window)


def rotary_window_attention(
    q_BSMHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    q_phases: Phases,
    k_phases: Phases,
    *,
    window: int,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = rotary_window_attention_reference
    if form_for(q_BSMHK, wins=kernel_serves(q_BSMHK)) == "triton":
        form = rotary_window_attention_triton
    return form(q_BSMHK, k_BSLHK, v_BSLHK, q_phases, k_phases, window=window)


def rotary_window_attention_triton(
    q_BSMHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    q_phases: Phases,
    k_phases: Phases,
    *,
    window: int,
    config: WindowConfig | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        q_BSMHK: bfloat16 or float32. Of this and the next two only the last dimension need be
            contiguous, and other strides even, as those of views of one packed projection are.
        k_BSLHK: of q's type.
        v_BSLHK: of q's type.
        q_phases: float32.
        k_phases: float32.
        window: steps that a query sees, its own included.
        config: how to cut the work; by default what suits the shape.

    Returns:
        (B, S, M, H, K), contiguous.

    Raises:
        ValueError: the kernel does not serve such types, strides or width of head.
    """
    check_served(q_BSMHK, k_BSLHK, v_BSLHK)
    n_batch, n_steps, n_query, n_heads, head_dim = q_BSMHK.shape
    n_key = k_BSLHK.shape[2]
    out = torch.empty(q_BSMHK.shape, device=q_BSMHK.device, dtype=q_BSMHK.dtype)
    if not out.numel():
        return out
    config = config or window_config(n_batch * n_heads, n_steps * n_query, q_BSMHK.dtype)
    q, k = _as_pairs(q_BSMHK), _as_pairs(k_BSLHK)
    q_cos, q_sin = _expanded(q_phases, (n_batch, n_steps, n_query, head_dim // 2))
    k_cos, k_sin = _expanded(k_phases, (n_batch, n_steps, n_key, head_dim // 2))
    grid = (n_batch * n_heads, triton.cdiv(n_steps * n_query, config.block_rows))
    _rotary_window_kernel[grid](
        q,
        k,
        v_BSLHK,
        q_cos,
        q_sin,
        k_cos,
        k_sin,
        out,
        n_steps,
        head_dim**-0.5 * LOG2_E,
        *q.stride()[:4],
        *k.stride()[:4],
        *v_BSLHK.stride()[:4],
        *q_cos.stride()[:3],
        *k_cos.stride()[:3],
        WINDOW=window,
        M=n_query,
        L=n_key,
        H=n_heads,
        K=head_dim,
        DOT=dot_type(q_BSMHK),
        BLOCK_ROWS=config.block_rows,
        BLOCK_KEYS=config.block_keys,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return out


def window_config(n_sequences: int, n_rows: int, dtype: torch.dtype) -> WindowConfig:
    """How to cut the work of n_sequences = B * H sequences of n_rows = S * M query rows."""
    if dtype == torch.float32:
        # Products of float32 run outside the tensor cores, in registers.
        return WindowConfig(16, 32, num_warps=4, num_stages=2)
    # Large blocks read the keys less often, but must be enough to fill the chip.
    if n_rows >= 128 and n_sequences * triton.cdiv(n_rows, 64) >= 512:
        return WindowConfig(64, 32, num_warps=4, num_stages=2)
    if n_sequences * triton.cdiv(n_rows, 32) >= 512:
        return WindowConfig(32, 64, num_warps=4, num_stages=2)
    return WindowConfig(16, 64, num_warps=4, num_stages=3)


def kernel_serves(x_K: Tensor) -> bool:
    """Whether an attention kernel takes inputs of this type and width of head."""
    head_dim = x_K.shape[-1]
    fits = head_dim >= 32 and head_dim & (head_dim - 1) == 0
    return fits and x_K.dtype in (torch.bfloat16, torch.float32)


def check_served(*inputs_K: Tensor) -> None:
    """Raises ValueError on types, strides or widths of head that the kernels do not take."""
    first = inputs_K[0]
    for x in inputs_K:
        if not kernel_serves(x) or x.dtype != first.dtype or x.stride(-1) != 1:
            raise ValueError(
                f"no kernel for {x.dtype} beside {first.dtype}, heads of width {x.shape[-1]} "
                f"and strides {x.stride()}"
            )


def dot_type(x: Tensor) -> tl.dtype:
    """The type of a matrix product's operands."""
    # Triton's interpreter, which runs on a CPU, multiplies bfloat16 as if it were integers.
    return tl.bfloat16 if x.is_cuda and x.dtype == torch.bfloat16 else tl.float32


def _as_pairs(x_K: Tensor) -> Tensor:
    """(..., K / 2) integers that hold a rotary pair each, so that a thread loads whole pairs."""
    return x_K.view(torch.int32 if x_K.element_size() == 2 else torch.int64)


def _expanded(phases: Phases, shape: tuple[int, ...]) -> Phases:
    """Cos and sin of the full shape, of the same strides, zero along what they do not depend on."""
    cos, sin = phases
    if cos.stride() != sin.stride() or cos.stride(-1) != 1:
        cos, sin = cos.contiguous(), sin.contiguous()
    return cos.expand(shape), sin.expand(shape)


def _block_mask(block: int, n_blocks: int, window: int, device: torch.device) -> Tensor:
    """(n_blocks, block, keys) True where a query step may attend a key step."""
    lead = 0 if n_blocks == 1 else block
    query = torch.arange(block, device=device)[:, None] + lead
    key = torch.arange(block + lead, device=device)
    mask = ((key <= query) & (key > query - window)).expand(n_blocks, -1, -1).clone()
    # Before the first block lies padding, not steps.
    mask[0, :, :lead] = False
    return mask


@triton.jit
def online_softmax(scores, v, acc, total, peak):  # type: ignore[no-untyped-def]
    """Adds a tile of keys to what query rows have read.

    Args:
        scores: (rows, keys) exponents of two, -inf where a key is not seen.
        v: (keys, K) values; finite everywhere.
        acc: (rows, K) sum of weighted values so far, relative to exp2(peak).
        total: (rows,) sum of weights so far, likewise.
        peak: (rows,) largest score so far; finite, so that unseen keys weigh nothing.

    Returns:
        The next acc, total and peak.
    """
    higher = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp2(peak - higher)
    weight = tl.exp2(scores - higher[:, None])
    total = total * shrink + tl.sum(weight, 1)
    acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, total, higher


@triton.jit  # type: ignore[untyped-decorator]
def _turned_pairs(x_row, cos_row, sin_row, exists, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Even and odd columns (rows, K / 2), in float32, of rows of pairs turned by their phases."""
    pair = tl.arange(0, K // 2)[None, :]
    inside = exists[:, None]
    word = tl.load(x_row[:, None] + pair, inside, 0)
    # The even column is the low half of a word.
    if word.dtype == tl.int32:
        even = (word << 16).to(tl.float32, bitcast=True)
        odd = (word & -65536).to(tl.float32, bitcast=True)
    else:
        even = word.to(tl.int32).to(tl.float32, bitcast=True)
        odd = (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    cos = tl.load(cos_row[:, None] + pair, inside, 0.0)
    sin = tl.load(sin_row[:, None] + pair, inside, 0.0)
    return even * cos - odd * sin, odd * cos + even * sin


@triton.jit  # type: ignore[untyped-decorator]
def _attend_tile(  # type: ignore[no-untyped-def]
    start,
    q_even,
    q_odd,
    q_step,
    acc,
    total,
    peak,
    k_ptr,
    v_ptr,
    cos_ptr,
    sin_ptr,
    n_steps,
    k_s,
    k_l,
    v_s,
    v_l,
    phase_s,
    phase_l,
    WINDOW: tl.constexpr,
    L: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Adds the tile of keys that begins at row `start`; EDGE where some query may not see some."""
    key = start + tl.arange(0, BLOCK_KEYS)
    step = key // L
    exists = step < n_steps
    at = step.to(tl.int64)
    latent = key % L
    v_row = v_ptr + at * v_s + latent * v_l
    # Before the keys' product, which then hides the time that this takes.
    v = tl.load(v_row[:, None] + tl.arange(0, K)[None, :], exists[:, None], 0.0)
    phase_at = at * phase_s + latent * phase_l
    k_even, k_odd = _turned_pairs(
        k_ptr + at * k_s + latent * k_l, cos_ptr + phase_at, sin_ptr + phase_at, exists, K
    )
    scores = tl.dot(q_even, tl.trans(k_even.to(DOT)), input_precision="ieee")
    # The order of columns does not matter to a dot product, so the halves are never interleaved.
    scores = tl.dot(q_odd, tl.trans(k_odd.to(DOT)), scores, input_precision="ieee")
    if EDGE:
        age = q_step[:, None] - step[None, :]
        scores = tl.where((age >= 0) & (age < WINDOW), scores, float("-inf"))
    return online_softmax(scores, v.to(DOT), acc, total, peak)


@triton.jit  # type: ignore[untyped-decorator]
def _rotary_window_kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    v_ptr,
    q_cos_ptr,
    q_sin_ptr,
    k_cos_ptr,
    k_sin_ptr,
    out_ptr,
    n_steps,
    scale,
    q_b,
    q_s,
    q_m,
    q_h,
    k_b,
    k_s,
    k_l,
    k_h,
    v_b,
    v_s,
    v_l,
    v_h,
    q_phase_b,
    q_phase_s,
    q_phase_m,
    k_phase_b,
    k_phase_s,
    k_phase_l,
    WINDOW: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """One block of one head's query rows: q_b .. k_phase_l are strides, q's and k's in pairs."""
    batch = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    # The last rows see the most keys: they start first, so that short blocks fill the end.
    first_row = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK_ROWS
    row = first_row + tl.arange(0, BLOCK_ROWS)
    q_step = row // M
    exists = q_step < n_steps
    at = q_step.to(tl.int64)
    query = row % M
    phase_at = batch * q_phase_b + at * q_phase_s + query * q_phase_m
    q_even, q_odd = _turned_pairs(
        q_ptr + batch * q_b + head * q_h + at * q_s + query * q_m,
        q_cos_ptr + phase_at,
        q_sin_ptr + phase_at,
        exists,
        K,
    )
    q_even = (q_even * scale).to(DOT)
    q_odd = (q_odd * scale).to(DOT)
    k_ptr += batch * k_b + head * k_h
    v_ptr += batch * v_b + head * v_h
    k_cos_ptr += batch * k_phase_b
    k_sin_ptr += batch * k_phase_b

    first_step = first_row // M
    last_step = tl.minimum((first_row + BLOCK_ROWS - 1) // M, n_steps - 1)
    # Key rows first .. end are seen by some query, and all of inner .. after by every query.
    first = tl.maximum(first_step - WINDOW + 1, 0) * L
    end = (last_step + 1) * L
    n_before = tl.cdiv(tl.maximum(last_step - WINDOW + 1, 0) * L - first, BLOCK_KEYS)
    inner = first + n_before * BLOCK_KEYS
    n_inner = tl.maximum((first_step + 1) * L - inner, 0) // BLOCK_KEYS
    after = inner + n_inner * BLOCK_KEYS
    n_after = tl.cdiv(tl.maximum(end - after, 0), BLOCK_KEYS)

    acc = tl.zeros((BLOCK_ROWS, K), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    peak = tl.full((BLOCK_ROWS,), -1e30, tl.float32)
    for tile in tl.range(0, n_inner):
        acc, total, peak = _attend_tile(
            inner + tile * BLOCK_KEYS,
            q_even,
            q_odd,
            q_step,
            acc,
            total,
            peak,
            k_ptr,
            v_ptr,
            k_cos_ptr,
            k_sin_ptr,
            n_steps,
            k_s,
            k_l,
            v_s,
            v_l,
            k_phase_s,
            k_phase_l,
            WINDOW,
            L,
            K,
            DOT,
            BLOCK_KEYS,
            EDGE=False,
        )
    for tile in tl.range(0, n_before + n_after):
        before = first + tile * BLOCK_KEYS
        behind = after + (tile - n_before) * BLOCK_KEYS
        acc, total, peak = _attend_tile(
            tl.where(tile < n_before, before, behind),
            q_even,
            q_odd,
            q_step,
            acc,
            total,
            peak,
            k_ptr,
            v_ptr,
            k_cos_ptr,
            k_sin_ptr,
            n_steps,
            k_s,
            k_l,
            v_s,
            v_l,
            k_phase_s,
            k_phase_l,
            WINDOW,
            L,
            K,
            DOT,
            BLOCK_KEYS,
            EDGE=True,
        )
    # A row that does not exist may have seen no key.
    read = acc / tl.maximum(total, 1e-30)[:, None]
    out_row = out_ptr + ((batch * n_steps * M + row) * H + head) * K
    column = tl.arange(0, K)[None, :]
    tl.store(out_row[:, None] + column, read.to(out_ptr.dtype.element_ty), exists[:, None])
