"""Softmax attention of one step's queries to cached keys and values: the streaming form.

Formula: as window_attention, for the newest step alone; `mask` says which cached steps are in the
window and belong to the stream.
"""

from torch import Tensor
from torch.nn import functional as F


def step_attention(q_BMHK: Tensor, k_BWLHK: Tensor, v_BWLHK: Tensor, mask_BW: Tensor) -> Tensor:
    """Reference form in plain PyTorch.

    Args:
        q_BMHK: M queries of one step.
        k_BWLHK: L keys of each of W cached steps, in any order.
        v_BWLHK: values alike.
        mask_BW: True where a cached step may be attended; at least one a row.

    Returns:
        (B, M, H, K).
    """
    q = q_BMHK.transpose(1, 2)
    k, v = (x.flatten(1, 2).transpose(1, 2) for x in (k_BWLHK, v_BWLHK))
    mask = mask_BW.repeat_interleave(k_BWLHK.shape[2], 1)[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
