"""Makes a model fast, and checks it, before anyone is served."""

from collections.abc import Callable

import numpy as np

from cortex.events import Events
from serving.engine.errors import ModelError
from serving.engine.jobs import DecodeJob, StepJob
from serving.engine.model import Model, Velocity
from serving.engine.service_time import ServiceTime


def warm_up(
    model: Model, *, max_batch: int, service_time: ServiceTime, clock: Callable[[], float]
) -> None:
    """Decodes silence through every path, twice, and records the time of the second run.

    Raises:
        ModelError: an answer has the wrong shape, or is not finite, or silence in a batch is
            answered unlike silence alone,
            or a stream miscounts its steps.
    """
    silence = Events.empty()
    alone = _golden(model.decode([silence]), 1)
    size = 1
    while size <= max_batch:
        for _ in range(2):
            start = clock()
            together = _golden(model.decode([silence] * size), size)
            end = clock()
        service_time.record(DecodeJob, size, end - start, end)
        if not np.allclose(together, alone, rtol=1e-2, atol=1e-2 * (1 + np.abs(alone).max())):
            raise ModelError(f"golden check: {size} silent windows are not answered as one is")
        size *= 2

    slot = model.open()
    try:
        for _ in range(2):
            start = clock()
            _golden(model.step([slot], [silence]), 1)
            end = clock()
        service_time.record(StepJob, 1, end - start, end)
        steps = model.context_steps(slot)
        if steps != min(2, model.grid.window_steps):
            raise ModelError(f"golden check: a stream's second answer rests on {steps} steps")
    finally:
        model.close(slot)


def _golden(velocity: Velocity, size: int) -> Velocity:
    if np.shape(velocity) != (size, 2) or not np.isfinite(velocity).all():
        raise ModelError(
            f"golden check: {size} silent windows gave an array of shape {np.shape(velocity)}, "
            f"expected {(size, 2)}, all finite"
        )
    return velocity
