"""A training step as one CUDA graph: a small model's hundreds of launches become one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from training.fitting.trainer import Trainer

WARM_UP_STEPS = 3


class CapturedStep:
    """Runs a trainer's steps: the first few as they come, then replays of a captured one.

    The stream, the graph and the state of CUDA's default generator, which dropout draws from, are
    each trainer's own: the steps of several trainers can overlap.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Takes an unsharded trainer on a GPU."""
        self._trainer = trainer
        device = trainer.generator.device
        self._default = torch.cuda.default_generators[device.index or 0]
        self._dropout = torch.Generator(device)
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self._eager_left = WARM_UP_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss = torch.zeros(())

    def step(self) -> Tensor:
        """One step, launched on this object's stream.

        Returns:
            The loss, on the device; `join` before it is read.
        """
        trainer = self._trainer
        with torch.cuda.stream(self._stream), self._own_randomness():
            trainer.prepare()
            if self._eager_left:
                self._eager_left -= 1
                self._loss = trainer.compute()
            else:
                if self._graph is None:
                    self._graph = self._capture()
                self._graph.replay()
            trainer.done += 1
            return self._loss.clone()

    def join(self) -> None:
        """What the current stream does next sees all steps so far, and the steps after see it."""
        torch.cuda.current_stream().wait_stream(self._stream)
        self._stream.wait_stream(torch.cuda.current_stream())

    def _capture(self) -> torch.cuda.CUDAGraph:
        trainer = self._trainer
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(trainer.generator)
        trainer.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph, stream=self._stream):
            self._loss = trainer.compute()
        return graph

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Inside, the default generator has this object's state.

        A replay writes its generator's seed to where the graph reads it. Were that one place for
        several graphs, one could read the seed of another that runs at the same time.
        """
        others = self._default.graphsafe_get_state()
        self._default.graphsafe_set_state(self._dropout)
        try:
            yield
        finally:
            self._default.graphsafe_set_state(others)
