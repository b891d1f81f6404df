"""An engine as it runs in the server, with a loop of plain Python in place of HTTP around it."""

import _queue
import _thread
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from serving.engine.engine import Engine, State
from serving.engine.faults import Faults
from serving.engine.host import Host
from serving.engine.model import Model, ModelCard
from serving.engine.settings import EngineSettings


class RunningEngine:
    """An engine whose host is the thread that calls `wait`.

    Attributes:
        engine: the engine.
        clock: seconds, monotonic.
    """

    clock = staticmethod(time.monotonic)

    def __init__(
        self,
        build: Callable[[], Model],
        *,
        settings: EngineSettings,
        scope: Callable[[], AbstractContextManager[object]],
        faults: Faults,
    ) -> None:
        """Starts to load the model.

        Args:
            build: loads it; runs on the model thread.
            settings: the engine's limits.
            scope: entered around all use of the model.
            faults: what to do about errors of the model.
        """
        # The cheapest way to wake a thread: one call in C on either side.
        self._woken: _queue.SimpleQueue[None] = _queue.SimpleQueue()
        self.engine = Engine(
            build,
            settings=settings,
            host=Host(
                notify=partial(self._woken.put, None),
                start_thread=_thread.start_new_thread,
                clock=self.clock,
                scope=scope,
                faults=faults,
            ),
        )
        self.engine.start()

    def wait(self, until: float) -> None:
        """Returns at a time, or when outcomes have come, which it has handed out."""
        try:
            self._woken.get(timeout=max(until - self.clock(), 0.0))
        except _queue.Empty:
            return
        self.engine.deliver()

    def until_ready(self) -> ModelCard:
        """Waits until requests are taken. Raises what the engine failed of, if it did."""
        while self.engine.state is State.WARMING:
            self.wait(self.clock() + 1.0)
        if self.engine.failure is not None:
            raise self.engine.failure
        assert self.engine.card is not None
        return self.engine.card

    def until_ended(self) -> BaseException | None:
        """Waits until the model thread has ended; returns what of, if not of `close`."""
        while self.engine.state not in (State.STOPPED, State.FAILED):
            self.wait(self.clock() + 1.0)
        return self.engine.failure

    def close(self) -> None:
        """Answers what is pending, and ends the engine's threads."""
        self.engine.drain()
        self.until_ended()
