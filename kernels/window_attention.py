"""Softmax attention among latents, causal in steps and limited to a window of steps.

Formula: a latent of step s attends every latent of steps s - window + 1 .. s, its own included:

    out = softmax(q k^T / sqrt(K)) v over those keys.

Before the first step there may be a start: one step of keys, the same for every sample.

The plain form's blocks of `window` queries see their own and the previous block's keys, so the
cost is linear in the length of the session (Beltagy et al. 2020, "Longformer", arXiv:2004.05150).
It writes padded copies of blocks, and a mask. The kernel reads q, k and v in place, visits only
tiles of keys inside the window, never holds scores in memory, and masks only tiles at an edge of
the window (Dao 2023, "FlashAttention-2", arXiv:2307.08691). The start is a tile of its own.
Where the queries are too few to fill the chip, a tile holds all the keys that a program reads, so
that they are in flight at once.

Shapes: B samples, S steps, M queries a step, L keys a step, H heads of width K; a row is one query
or key of one step, R of them a sample.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import one_window
from kernels.dependent_launch import launch_options, wait_for_inputs
from kernels.dispatch import form_for
from kernels.matmul_tile import product_type
from kernels.quantize_rows import clipped_int8, quantize_with_reference

LOG2_E = 1.4426950408889634
_TMA_ALIGNMENT = 16
# The tensor cores' least depth of a product.
_LEAST_KEYS = 16


class KeysValues(NamedTuple):
    """What a step is seen by.

    Attributes:
        k_LHK: its keys, contiguous for the kernel.
        v_LHK: its values, likewise.
    """

    k_LHK: Tensor
    v_LHK: Tensor

    @classmethod
    def of(cls, k_11LHK: Tensor, v_11LHK: Tensor) -> "KeysValues":
        """Those of a session of one step."""
        return cls(k_11LHK[0, 0].contiguous(), v_11LHK[0, 0].contiguous())


@dataclass(frozen=True)
class WindowConfig:
    """How the kernel cuts its work.

    Attributes:
        block_rows: query rows a program, a power of two, 16 at least.
        block_keys: key rows a tile, alike.
        warps: warps a program.
        stages: tiles in flight.
        tma: load keys and values by the tensor memory accelerator.
    """

    block_rows: int
    block_keys: int
    warps: int
    stages: int
    tma: bool = False


def window_attention_reference(
    q_BSMHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    *,
    window: int,
    start: KeysValues | None = None,
    out_scale: float | None = None,
) -> Tensor:
    """Plain PyTorch, dense attention inside blocks: what the kernel must equal.

    Args:
        q_BSMHK: M queries at each of S steps, or of only the last of these.
        k_BSLHK: L keys at each step.
        v_BSLHK: L values at each step.
        window: steps that a query sees, its own included.
        start: what the step before the first is seen by, or None.
        out_scale: the scale of an int8 result, or None.

    Returns:
        (B, S, M, H, K), of as many steps as there are queries for, of q's type, or int8 with the
            scale `out_scale` as in quantize_rows.
    """
    asked = q_BSMHK.shape[1]
    q_BSMHK = F.pad(q_BSMHK, (0, 0) * 3 + (k_BSLHK.shape[1] - asked, 0))
    n_batch, n_steps, n_query, n_heads, head_dim = q_BSMHK.shape
    n_key = k_BSLHK.shape[2]
    block = min(window, n_steps)
    n_blocks = -(-n_steps // block)
    # Steps before a block's own that it sees, too. Before the first block's, only a start exists.
    lead = block if n_blocks > 1 else int(start is not None)
    q = F.pad(q_BSMHK, (0, 0) * 3 + (0, n_blocks * block - n_steps)).unflatten(1, (-1, block))
    k, v = (
        _led_blocks(x, before, block, lead)
        for x, before in zip((k_BSLHK, v_BSLHK), start or (None, None), strict=True)
    )
    mask = _block_mask(block, n_blocks, window, lead, int(start is not None), q.device)
    mask = mask.repeat_interleave(n_query, 1).repeat_interleave(n_key, 2)
    # Blocks become samples: with more than four dimensions PyTorch has no fused attention.
    q, k, v = (x.flatten(2, 3).flatten(0, 1).transpose(1, 2) for x in (q, k, v))
    mask = mask.repeat(n_batch, 1, 1)[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
    out = out.reshape(n_batch, n_blocks * block, n_query, n_heads, head_dim)
    out = out[:, n_steps - asked : n_steps]
    return out if out_scale is None else quantize_with_reference(out, out_scale)


def window_attention(
    q_BSMHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    *,
    window: int,
    start: KeysValues | None = None,
    out_scale: float | None = None,
) -> Tensor:
    """The form for the case at hand; arguments as the reference's."""
    form = window_attention_reference
    if form_for(q_BSMHK, wins=kernel_serves(q_BSMHK)) == "triton":
        form = window_attention_triton
    return form(q_BSMHK, k_BSLHK, v_BSLHK, window=window, start=start, out_scale=out_scale)


def window_attention_triton(
    q_BSMHK: Tensor,
    k_BSLHK: Tensor,
    v_BSLHK: Tensor,
    *,
    window: int,
    start: KeysValues | None = None,
    out_scale: float | None = None,
    config: WindowConfig | None = None,
) -> Tensor:
    """The Triton kernel; arguments as the reference's, without gradients.

    Args:
        q_BSMHK: bfloat16 or float32. Of this and the next two the last dimension must be
            contiguous. Inputs whose rows are evenly spaced within a sample, as those of views of
            one packed projection are, or queries repeated in every sample, are read in place.
        k_BSLHK: of q's type.
        v_BSLHK: of q's type.
        window: steps that a query sees, its own included.
        start: as the reference's, of k's type. No kernel that is still running may be writing it.
        out_scale: the scale of an int8 result, or None.
        config: how to cut the work; by default what suits the shape, and where they are
            faster one of one_window's kernels.

    Returns:
        (B, S, M, H, K), contiguous, of as many steps as there are queries for.

    Raises:
        ValueError: the kernel does not serve such types, strides or width of head, queries are of
            more steps than keys, or the start is not one step of keys, contiguous.
    """
    check_served(q_BSMHK, k_BSLHK, v_BSLHK, *(start or ()))
    for x in start or ():
        if x.shape != k_BSLHK.shape[2:] or not x.is_contiguous():
            expected = tuple(k_BSLHK.shape[2:])
            raise ValueError(f"a start {tuple(x.shape)}, expected a contiguous one {expected}")
    lead = k_BSLHK.shape[1] - q_BSMHK.shape[1]
    if lead < 0:
        raise ValueError(f"queries of {q_BSMHK.shape[1]} steps, but keys of {k_BSLHK.shape[1]}")
    n_batch, n_steps, n_query, n_heads, head_dim = q_BSMHK.shape
    n_key = k_BSLHK.shape[2]
    out = torch.empty(q_BSMHK.shape, device=q_BSMHK.device, dtype=read_type(q_BSMHK, out_scale))
    if not out.numel():
        return out
    exponent = head_dim**-0.5 * LOG2_E
    if config is None and start and one_window.serves(q_BSMHK, k_BSLHK, v_BSLHK, window):
        inputs = q_BSMHK, k_BSLHK, v_BSLHK
        one_window.one_window(*inputs, start, window, out_scale, exponent, out)
        return out
    config = config or window_config(
        n_batch * n_heads, n_steps * n_query, (window + 16 // n_query) * n_key, q_BSMHK.dtype
    )
    q, k, v = (x.flatten(1, 2) for x in (q_BSMHK, k_BSLHK, v_BSLHK))
    tma = config.tma and _tma_loads(k) and _tma_loads(v)
    grid = (n_batch * n_heads, triton.cdiv(n_steps * n_query, config.block_rows))
    _window_kernel[grid](
        q,
        _tiles(k, config.block_keys) if tma else k,
        _tiles(v, config.block_keys) if tma else v,
        *(start or (None, None)),
        out,
        lead + n_steps,
        lead,
        exponent,
        0.0 if out_scale is None else 1.0 / out_scale,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        WINDOW=window,
        M=n_query,
        L=n_key,
        H=n_heads,
        K=head_dim,
        DOT=product_type(q),
        BLOCK_ROWS=config.block_rows,
        BLOCK_KEYS=config.block_keys,
        START=0 if start is None else max(triton.next_power_of_2(n_key), _LEAST_KEYS),
        INT8=out_scale is not None,
        TMA=tma,
        num_warps=config.warps,
        num_stages=config.stages,
        **launch_options(q),
    )
    return out


def window_config(n_sequences: int, n_rows: int, n_keys: int, dtype: torch.dtype) -> WindowConfig:
    """How to cut the work.

    Args:
        n_sequences: B * H sequences.
        n_rows: S * M query rows of each.
        n_keys: keys that some 16 rows see.
        dtype: q's type.
    """
    if dtype == torch.float32:
        # Products of float32 run outside the tensor cores, in registers.
        return WindowConfig(16, 32, warps=4, stages=2)
    rows, warps = (64, 4) if n_rows >= 128 else (16, 1)
    if n_sequences * triton.cdiv(n_rows, rows) >= 512:
        return WindowConfig(rows, 64, warps=warps, stages=2, tma=rows == 64)
    # Few programs: what counts is to have many loads in flight at once.
    return WindowConfig(rows, 128, warps=4, stages=2)


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


def read_type(q_K: Tensor, out_scale: float | None) -> torch.dtype:
    """The type of what queries of a type read."""
    return q_K.dtype if out_scale is None else torch.int8


def _tma_loads(x_BRHK: Tensor) -> bool:
    """Whether memory is aligned as the TMA wants it."""
    strides = (stride * x_BRHK.element_size() for stride in x_BRHK.stride()[:3])
    return not any(place % _TMA_ALIGNMENT for place in (x_BRHK.data_ptr(), *strides))


def _tiles(x_BRHK: Tensor, block_keys: int) -> Any:
    """A descriptor that loads rows of one head, and zeros where a sample has none."""
    head_dim = x_BRHK.shape[-1]
    return TensorDescriptor.from_tensor(x_BRHK.transpose(1, 2), [1, 1, block_keys, head_dim])


def _led_blocks(x_BSLHK: Tensor, start_LHK: Tensor | None, block: int, lead: int) -> Tensor:
    """(B, blocks, lead + block, L, H, K) blocks of steps, each behind those before it."""
    tail = -x_BSLHK.shape[1] % block
    front = lead
    if start_LHK is not None:
        x_BSLHK = torch.cat((start_LHK.expand(len(x_BSLHK), 1, -1, -1, -1), x_BSLHK), 1)
        front -= 1
    x = F.pad(x_BSLHK, (0, 0) * 3 + (front, tail))
    if x.shape[1] == lead + block:
        return x[:, None]
    x = x.unflatten(1, (-1, block))
    return torch.cat((x[:, :-1], x[:, 1:]), 2)


def _block_mask(
    block: int, n_blocks: int, window: int, lead: int, starts: int, device: torch.device
) -> Tensor:
    """(n_blocks, block, lead + block) True where a query step may attend a key step."""
    query = torch.arange(block, device=device)[:, None] + lead
    key = torch.arange(block + lead, device=device)
    mask = ((key <= query) & (key > query - window)).expand(n_blocks, -1, -1).clone()
    # Before the first block lies padding, and at its end the start.
    mask[0, :, : lead - starts] = False
    return mask


@triton.jit
def online_softmax(scores, v, acc, total, peak, scale):  # type: ignore[no-untyped-def]
    """Adds a tile of keys to what query rows have read.

    Args:
        scores: (rows, keys) dot products, -inf where a key is not seen.
        v: (keys, K) values; finite everywhere.
        acc: (rows, K) sum of weighted values so far, relative to the weight of the peak.
        total: (rows,) sum of weights so far, likewise.
        peak: (rows,) largest score so far; finite, so that unseen keys weigh nothing.
        scale: makes an exponent of two of a score; positive.

    Returns:
        The next acc, total and peak.
    """
    higher = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp2((peak - higher) * scale)
    weight = tl.exp2(scores * scale - (higher * scale)[:, None])
    total = total * shrink + tl.sum(weight, 1)
    acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, total, higher


@triton.jit  # type: ignore[untyped-decorator]
def softmax_read(acc, total, out_inverse, INT8: tl.constexpr):  # type: ignore[no-untyped-def]
    """(rows, K) what rows have read in all, or its int8; zero where they saw no key."""
    read = acc * (1.0 / tl.maximum(total, 1e-30))[:, None]
    return clipped_int8(read * out_inverse) if INT8 else read


@triton.jit  # type: ignore[untyped-decorator]
def _window_kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ref,
    v_ref,
    start_k_ptr,
    start_v_ptr,
    out_ptr,
    n_steps,
    lead,
    scale,
    out_inverse,
    q_b,
    q_r,
    q_h,
    k_b,
    k_r,
    k_h,
    v_b,
    v_r,
    v_h,
    WINDOW: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    START: tl.constexpr,
    INT8: tl.constexpr,
    TMA: tl.constexpr,
    PDL: tl.constexpr,
):
    """One block of one head's query rows, which begin at the step `lead`.

    q_b .. v_h are strides, the _ref pointers or descriptors for the TMA.
    """
    sample = tl.program_id(0) // H
    head = tl.program_id(0) % H
    batch = sample.to(tl.int64)
    # The last rows see the most keys: they start first, so that short blocks fill the end.
    first_row = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK_ROWS
    offset = tl.arange(0, BLOCK_ROWS)
    step = lead + (first_row + offset) // M
    exists = (step < n_steps)[:, None]
    column = tl.arange(0, K)
    # Rows see keys seen_from .. seen_to - 1; all see those of full_from .. full_to - 1.
    seen_from = (tl.maximum(step - WINDOW + 1, 0) * L)[:, None]
    seen_to = ((step + 1) * L)[:, None]
    first_step = lead + first_row // M
    last_step = tl.minimum(lead + (first_row + BLOCK_ROWS - 1) // M, n_steps - 1)
    first = tl.maximum(first_step - WINDOW + 1, 0) * L
    end = (last_step + 1) * L
    full_from = tl.maximum(last_step - WINDOW + 1, 0) * L
    full_to = (first_step + 1) * L

    if START:
        # No kernel is writing it: it may come before whatever the kernel before still does.
        at_start = tl.arange(0, START)
        start_place = (at_start * H + head)[:, None] * K + column[None, :]
        start_exists = (at_start < L)[:, None]
        start_k = tl.load(start_k_ptr + start_place, start_exists, 0.0).to(DOT)
        start_v = tl.load(start_v_ptr + start_place, start_exists, 0.0).to(DOT)
    wait_for_inputs(PDL)
    q_block = q_ptr + batch * q_b + head * q_h + first_row.to(tl.int64) * q_r
    q = tl.load(q_block + offset[:, None] * q_r + column[None, :], exists, 0.0).to(DOT)
    key = tl.arange(0, BLOCK_KEYS)
    acc = tl.zeros((BLOCK_ROWS, K), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    peak = tl.full((BLOCK_ROWS,), -1e30, tl.float32)
    if not TMA:
        at = first.to(tl.int64)
        k_ref += batch * k_b + head * k_h + at * k_r + column[None, :]
        v_ref += batch * v_b + head * v_h + at * v_r + column[None, :]
    for start in tl.range(first, end, BLOCK_KEYS):
        if TMA:
            k = k_ref.load([sample, head, start, 0]).reshape((BLOCK_KEYS, K))
            v = v_ref.load([sample, head, start, 0]).reshape((BLOCK_KEYS, K))
        else:
            row = (start - first + key)[:, None]
            inside = (start + key < end)[:, None]
            k = tl.load(k_ref + row * k_r, inside, 0.0)
            v = tl.load(v_ref + row * v_r, inside, 0.0)
        scores = tl.dot(q, tl.trans(k.to(DOT)), input_precision="ieee")
        if (start < full_from) | (start + BLOCK_KEYS > full_to):
            at_key = (start + key)[None, :]
            seen = (at_key >= seen_from) & (at_key < seen_to)
            scores = tl.where(seen, scores, float("-inf"))
        acc, total, peak = online_softmax(scores, v.to(DOT), acc, total, peak, scale)
    if START:
        # Last, as its score would hold up the loop's loads.
        scores = tl.dot(q, tl.trans(start_k), input_precision="ieee")
        seen = (at_start < L)[None, :] & (step < WINDOW - 1)[:, None]
        scores = tl.where(seen, scores, float("-inf"))
        acc, total, peak = online_softmax(scores, start_v, acc, total, peak, scale)

    out_block = out_ptr + ((batch * (n_steps - lead) * M + first_row) * H + head) * K
    place = out_block + offset[:, None] * (H * K) + column[None, :]
    read = softmax_read(acc, total, out_inverse, INT8)
    tl.store(place, read.to(out_ptr.dtype.element_ty), exists)
