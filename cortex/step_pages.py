"""Keys and values of the last steps of every stream, a page a step.

A slot owns `depth` pages; its step numbered n is in page n % depth of them, so that a new step
takes the place of the one that has left the window.

Shapes: B streams, W pages of a slot, L latents a step, H heads, K width of a head.
"""

import torch
from torch import Tensor


class StepPages:
    """Where the pages of every slot lie, the same for all pools of one depth."""

    def __init__(self, depth: int, device: torch.device) -> None:
        self.depth = depth
        self._index_W = torch.arange(depth, device=device)

    def own(self, slot_B: Tensor, step_B: Tensor) -> Tensor:
        """(B,) the page of each slot's step."""
        return slot_B * self.depth + step_B % self.depth

    def seen(self, slot_B: Tensor, step_B: Tensor, first_B: Tensor) -> Tensor:
        """(B, W) pages that hold steps first_B .. step_B of the window; -1 for the others.

        Steps are written in order, so the newest step's number says what every page holds.
        """
        age_BW = (step_B[:, None] - self._index_W) % self.depth
        page_BW = slot_B[:, None] * self.depth + self._index_W
        return page_BW.where(age_BW <= (step_B - first_B)[:, None], -1)


class PagePool:
    """The pages of one layer.

    Attributes:
        k: (slots * depth, L, H, K) rotated keys.
        v: (slots * depth, L, H, K) values.
    """

    def __init__(self, pages: int, shape: tuple[int, int, int], like: Tensor) -> None:
        self.k = like.new_zeros((pages, *shape))
        self.v = like.new_zeros((pages, *shape))

    def write(self, page_B: Tensor, k_BLHK: Tensor, v_BLHK: Tensor) -> None:
        """Stores one step's keys and values in each of B pages."""
        self.k[page_B] = k_BLHK
        self.v[page_B] = v_BLHK
