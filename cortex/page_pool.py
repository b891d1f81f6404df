"""Keys and values of the last steps of every stream, a page a step.

A slot owns as many pages as the window has steps; kernels.stream_plan says which page holds which
step, so that a new step takes the place of the one that has left the window.

Shapes: P pages, L latents a step, H heads of width K.
"""

from torch import Tensor


class PagePool:
    """The pages of one layer.

    Attributes:
        k: (P, L, H, K) turned keys.
        v: (P, L, H, K) values.
    """

    def __init__(self, pages: int, shape: tuple[int, int, int], like: Tensor) -> None:
        self.k = like.new_zeros((pages, *shape))
        self.v = like.new_zeros((pages, *shape))
