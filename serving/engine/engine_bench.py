"""An engine on its real threads, and a host that delivers when the test looks."""

import threading
import time
from collections.abc import Callable
from typing import Any

from serving.engine.engine import Engine, State
from serving.engine.fake_model import DeviceFault
from serving.engine.faults import Faults
from serving.engine.host import Host
from serving.engine.jobs import Job, Outcome
from serving.engine.model import Model
from serving.engine.outbox import BatchReport
from serving.engine.pipeline_driver import one_event
from serving.engine.settings import EngineSettings


def _start_thread(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Of a kind that can be counted.
    threading.Thread(target=function, args=arguments, daemon=True).start()


class EngineBench:
    """An engine for tests. Its clock moves when the test sets it.

    Attributes:
        now: seconds on its clock.
        engine: the engine.
        got: outcomes by the keys that were submitted.
        reports: batches that ended.
        deaths: what the model thread died of.
    """

    def __init__(self, build: Callable[[], Model], settings: EngineSettings | None = None) -> None:
        """Starts the engine."""
        self.now = 0.0
        self.got: dict[object, Outcome] = {}
        self.reports: list[BatchReport] = []
        self.deaths: list[BaseException] = []
        self._woken = threading.Event()
        self.engine = Engine(
            build,
            settings=settings or EngineSettings(max_batch=4),
            host=Host(
                notify=self._woken.set,
                start_thread=_start_thread,
                clock=lambda: self.now,
                faults=Faults(is_fatal=lambda error: isinstance(error, DeviceFault)),
                on_batch=self.reports.append,
                on_death=self.deaths.append,
            ),
        )
        self.engine.start()

    def until(self, done: Callable[[], bool]) -> None:
        """Delivers until something is so."""
        end = time.monotonic() + 20
        self.engine.deliver()
        while not done():
            assert self._woken.wait(max(0.0, end - time.monotonic())), "a wake-up was lost"
            self._woken.clear()
            self.engine.deliver()

    def ready(self) -> "EngineBench":
        """The bench, once the engine is ready."""
        self.until(lambda: self.engine.state is State.READY)
        return self

    def put(self, key: object) -> Callable[[Outcome], None]:
        """Keeps an outcome, which must be the only one of its key."""

        def done(outcome: Outcome) -> None:
            assert key not in self.got
            self.got[key] = outcome

        return done

    def window(self, key: object, value: int = 1, deadline_s: float = 10.0) -> Job:
        """Submits a window with one event of a value."""
        return self.engine.submit_window(
            one_event(value), deadline_s=deadline_s, on_done=self.put(key)
        )

    def outcome(self, key: object) -> Outcome:
        """Waits for an outcome."""
        self.until(lambda: key in self.got)
        return self.got.pop(key)
