"""Softmax attention among latents, causal in steps and limited to a window of steps.

Formula: a latent of step s attends every latent of steps s - window + 1 .. s, its own included.
Blocks of `window` queries see their own and the previous block's keys, so the cost is linear in
the length of the session (Beltagy et al. 2020, "Longformer", arXiv:2004.05150).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


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


def _block_mask(block: int, n_blocks: int, window: int, device: torch.device) -> Tensor:
    """(n_blocks, block, keys) True where a query step may attend a key step."""
    lead = 0 if n_blocks == 1 else block
    query = torch.arange(block, device=device)[:, None] + lead
    key = torch.arange(block + lead, device=device)
    mask = ((key <= query) & (key > query - window)).expand(n_blocks, -1, -1).clone()
    # Before the first block lies padding, not steps.
    mask[0, :, :lead] = False
    return mask
