"""How fast a trainer's steps are, and what they compute."""

import itertools
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.fitting.captured_step import WARM_UP_STEPS, CapturedStep
from training.fitting.trainer import Trainer

# Of the way in which the steps are run: a captured one is captured among them.
UNTIMED_STEPS = WARM_UP_STEPS + 5


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """Steps of one trainer.

    Attributes:
        seconds: time of each step.
        peak_bytes: most memory that tensors had on the GPU; 0 on a CPU.
    """

    seconds: tuple[float, ...]
    peak_bytes: int

    def quantile_s(self, q: float) -> float:
        """Time that a share q of the steps keep to."""
        return float(np.quantile(self.seconds, q))


def step_speed(trainer: Trainer, *, captured: bool) -> StepSpeed:
    """Runs all of a fresh trainer's steps and times those after UNTIMED_STEPS.

    On a GPU a step's time is that between the ends of two, so that its launches overlap the one
    before as they do in training.

    Args:
        trainer: not yet used, with more than UNTIMED_STEPS steps to do.
        captured: whether to run them as a CUDA graph.
    """
    steps = CapturedStep(trainer) if captured else trainer
    on_gpu = trainer.generator.device.type == "cuda"
    if on_gpu:
        # From here on: what a graph holds is allocated as it is captured.
        torch.cuda.reset_peak_memory_stats()
    for _ in range(UNTIMED_STEPS):
        steps.step()
    steps.join()
    n_timed = trainer.config.steps - UNTIMED_STEPS
    if not on_gpu:
        moments = [time.perf_counter()]
        for _ in range(n_timed):
            steps.step()
            moments.append(time.perf_counter())
        return StepSpeed(seconds=tuple(np.diff(moments).tolist()), peak_bytes=0)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(n_timed + 1)]
    events[0].record()
    for event in events[1:]:
        steps.step()
        steps.join()
        event.record()
    torch.cuda.synchronize()
    return StepSpeed(
        seconds=tuple(
            first.elapsed_time(second) / 1000 for first, second in itertools.pairwise(events)
        ),
        peak_bytes=torch.cuda.max_memory_allocated(),
    )


def tokens_a_step(trainer: Trainer) -> float:
    """Mean number of events in the batches of a fresh trainer's steps, before any is dropped."""
    counts = []
    for step in range(trainer.config.steps):
        trainer.done = step
        trainer.prepare()
        counts.append(int(trainer.batch().events.mask_BSE.sum()))
    trainer.done = 0
    return float(np.mean(counts))


def flop_a_step(trainer: Trainer) -> int:
    """Floating-point operations of a step's matrix products, forward and backward.

    All that is computed counts, attention to masked steps and to padding included. On a CPU,
    attention's own products are not counted where torch fuses them.

    Args:
        trainer: one whose blocks are not compiled; it takes a step.
    """
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    return int(counter.get_total_flops())
