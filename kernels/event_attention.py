"""Attention of each step's latents to the events of the last few steps.

Formula, for one head, latent l of step s and the events e of steps s - n_back + 1 .. s:

    score = q_l . k_e / sqrt(K) + bias
    sigmoid:  out_l = sum_e sigmoid(score) v_e     (keeps the firing rate; additive over events)
    softmax:  out_l = sum_e softmax_e(score) v_e   (averages the firing rate away)

Without events either one is zero: silence is a defined input.
Source: sigmoid weights, Ramapuram et al. 2024, arXiv:2409.04431.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Weighting = Literal["sigmoid", "softmax"]


def event_attention(
    q_BSLHK: Tensor,
    k_BSEHK: Tensor,
    v_BSEHK: Tensor,
    mask_BSE: Tensor,
    bias_H: Tensor,
    *,
    n_back: int,
    weighting: Weighting,
) -> Tensor:
    """Reference form in plain PyTorch.

    Args:
        q_BSLHK: queries of L latents at each of S steps.
        k_BSEHK: keys of the events, grouped by step and padded to E a step.
        v_BSEHK: values of the events.
        mask_BSE: True where an event is real.
        bias_H: added to the scores of each head.
        n_back: steps of events a step sees, itself included.
        weighting: "sigmoid" or "softmax".

    Returns:
        (B, S, L, H, K).
    """
    n_steps = q_BSLHK.shape[1]
    scale = 1.0 / math.sqrt(q_BSLHK.shape[-1])
    shifts = range(min(n_back, n_steps))
    # A shift of j pairs step s with the events of step s - j, as views: no key is copied.
    scores = [
        (
            torch.einsum("bslhk,bsehk->bshle", q_BSLHK[:, j:] * scale, k_BSEHK[:, : n_steps - j])
            + bias_H[:, None, None]
        ).masked_fill(~mask_BSE[:, : n_steps - j, None, None], -torch.inf)
        for j in shifts
    ]
    weights = (
        [score.sigmoid() for score in scores]
        if weighting == "sigmoid"
        else _softmax(scores, n_steps)
    )
    out = torch.zeros_like(q_BSLHK)
    for j in shifts:
        part = torch.einsum("bshle,bsehk->bslhk", weights[j], v_BSEHK[:, : n_steps - j])
        out = part if j == 0 else torch.cat((out[:, :j], out[:, j:] + part), 1)
    return out


def _softmax(scores: list[Tensor], n_steps: int) -> list[Tensor]:
    """Softmax over the events of all shifts together; zero where there is none."""
    padded = [
        torch.nn.functional.pad(s, (0, 0) * 3 + (n_steps - s.shape[1], 0), value=-torch.inf)
        for s in scores
    ]
    joint = torch.cat(padded, -1)
    top = joint.amax(-1, keepdim=True).clamp_min(torch.finfo(joint.dtype).min)
    raised = (joint - top).exp()
    weights = raised / raised.sum(-1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)
    return [w[:, j:] for j, w in enumerate(weights.split(scores[0].shape[-1], -1))]
