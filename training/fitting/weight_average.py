"""A running average of a model's weights, which generalises better than the last ones.

Source: Izmailov et al. 2018, arXiv:1803.05407; the exponential form as in Polyak averaging.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages in place, on each process's own shards."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Starts from the module's present weights."""
        self._parameters = dict(module.named_parameters())
        self._decay = decay
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the present weights."""
        average = [_local(w) for w in self.weights.values()]
        current = [_local(p.detach()) for p in self._parameters.values()]
        torch._foreach_lerp_(average, current, 1.0 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights inside, and its own again outside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self._parameters.items():
            mine, its = _local(self.weights[name]), _local(p.detach())
            held = its.clone()
            its.copy_(mine)
            mine.copy_(held)


def _local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
