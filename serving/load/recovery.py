"""How long an engine is away after a fault."""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Answer
from serving.engine.faults import Faults
from serving.engine.jobs import Outcome
from serving.engine.model import IntArray, Model, Pending
from serving.engine.settings import EngineSettings
from serving.load.running_engine import RunningEngine


class FatalFaultError(Exception):
    """Stands for an error after which the device is of no use."""


class FaultSwitch:
    """Makes models fail once.

    Attributes:
        error: what the next batch of windows fails with.
        at: when the last one failed.
    """

    def __init__(self) -> None:
        """A switch that is off."""
        self.error: Exception | None = None
        self.at = 0.0

    def check(self) -> None:
        """Raises the error if there is one, and is off again."""
        error, self.error = self.error, None
        if error is not None:
            self.at = time.monotonic()
            raise error


class FaultyModel:
    """A model that fails when a switch says so. Attributes as of Model."""

    def __init__(self, model: Model, switch: FaultSwitch) -> None:
        """Args: what works otherwise, and the switch."""
        self._model = model
        self._switch = switch
        self.digest = model.digest
        self.name = model.name
        self.grid = model.grid
        self.unit_ids = model.unit_ids
        self.velocity_unit = model.velocity_unit
        self.slots = model.slots

    def launch_windows(self, events: RaggedEvents) -> Pending:
        """As of Model, or the switch's error."""
        self._switch.check()
        return self._model.launch_windows(events)

    def launch_steps(self, slot_B: IntArray, events: RaggedEvents) -> Pending:
        """As of Model."""
        return self._model.launch_steps(slot_B, events)

    def reset(self, slot_B: IntArray, first_step_B: IntArray) -> None:
        """As of Model."""
        self._model.reset(slot_B, first_step_B)

    def window_shapes(self, max_rows: int) -> Sequence[tuple[int, int]]:
        """As of Model."""
        return self._model.window_shapes(max_rows)

    def step_shapes(self, max_rows: int) -> Sequence[tuple[int, int]]:
        """As of Model."""
        return self._model.step_shapes(max_rows)


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Seconds from a fault until all is well.

    Attributes:
        batch_fault_s: from an error that fails one batch to the answer of the next window.
        fatal_fault_s: from an error that ends the model thread to another engine that takes
            requests: its model loaded, warmed up and checked.
    """

    batch_fault_s: float
    fatal_fault_s: float


def measure_recovery(
    build: Callable[[], Model],
    windows: Iterable[Events],
    *,
    settings: EngineSettings,
    scope: Callable[[], AbstractContextManager[object]],
    faults: Faults,
) -> Recovery:
    """Lets an engine fail in both ways, and starts another after the second.

    Args:
        build: loads the model.
        windows: windows without end.
        settings: the engine's limits.
        scope: entered around all use of the model.
        faults: what to do about other errors of the model.
    """
    switch = FaultSwitch()
    source = iter(windows)

    def engine() -> RunningEngine:
        return RunningEngine(
            lambda: FaultyModel(build(), switch),
            settings=settings,
            scope=scope,
            faults=replace(
                faults,
                is_fatal=lambda error: isinstance(error, FatalFaultError) or faults.is_fatal(error),
            ),
        )

    target = engine()
    target.until_ready()
    switch.error = RuntimeError("asked to fail")
    _ask(target, next(source))
    answer = _ask(target, next(source))
    batch_fault_s = time.monotonic() - switch.at
    if not isinstance(answer, Answer):
        raise RuntimeError(f"no answer after a batch that failed: {answer}")
    switch.error = FatalFaultError("asked to end")
    _ask(target, next(source))
    target.until_ended()
    # The memory that a new process would not have taken either.
    del target
    gc.collect()
    target = engine()
    target.until_ready()
    fatal_fault_s = time.monotonic() - switch.at
    target.close()
    return Recovery(batch_fault_s=batch_fault_s, fatal_fault_s=fatal_fault_s)


def _ask(target: RunningEngine, window: Events) -> Outcome:
    got: list[Outcome] = []
    target.engine.submit_window(window, deadline_s=10.0, on_done=got.append)
    while not got:
        target.wait(target.clock() + 1.0)
    return got[0]
