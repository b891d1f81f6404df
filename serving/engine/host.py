"""What the engine needs of the program around it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from serving.engine.faults import Faults
from serving.engine.outbox import BatchReport
from serving.engine.stream_table import StreamCounts


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the engine needs of the program around it.

    Attributes:
        notify: called on the engine's threads after something was put out; must make the host
            call `deliver` on its own thread soon. Calls may coalesce.
        start_thread: starts a native thread running a function with the given arguments.
        clock: seconds, monotonic.
        sleep: blocks a native thread for so many seconds.
        scope: entered around all use of the model, on each thread that uses it.
        faults: what to do about errors of the model.
        on_batch: called by `deliver` after each batch.
        on_streams: called by `deliver` with what happened to streams since the last call.
        on_death: called by `deliver` once, when the model thread has died of an error.
    """

    notify: Callable[[], object]
    start_thread: Callable[[Callable[..., None], tuple[Any, ...]], object]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    scope: Callable[[], AbstractContextManager[object]] = nullcontext
    faults: Faults = field(default_factory=Faults)
    on_batch: Callable[[BatchReport], None] = lambda report: None
    on_streams: Callable[[StreamCounts], None] = lambda counts: None
    on_death: Callable[[BaseException], object] = lambda error: None
