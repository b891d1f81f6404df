"""A function of tensors as CUDA graphs, one for each set of shapes: a launch instead of dozens."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.cuda_graph import capture


@dataclass(frozen=True, kw_only=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Captured:
    """Calls a function on a GPU by replaying what it did at its first call with the same shapes.

    The function must do the same work whatever its inputs hold, without waiting for the device. It
    runs in the thread that makes the calls.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's output for tensors on any device; overwritten by the next call."""
        captured = self._graphs[_shapes(inputs)]
        for own, given in zip(captured.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        captured.graph.replay()
        return captured.output

    def has(self, *inputs: Tensor) -> bool:
        """Whether there is a graph for inputs of these shapes."""
        return _shapes(inputs) in self._graphs

    def capture(self, *examples: Tensor) -> None:
        """Makes the graph for inputs on the GPU of these shapes; calls the function on them."""
        inputs = tuple(example.clone() for example in examples)
        outputs: list[Tensor] = []
        graph = capture(lambda: outputs.append(self._function(*inputs)))
        self._graphs[_shapes(inputs)] = _Graph(graph=graph, inputs=inputs, output=outputs[-1])


def _shapes(inputs: tuple[Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in inputs)
