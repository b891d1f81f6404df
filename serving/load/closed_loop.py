"""Callers that each wait for an answer before they ask again."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cortex.events import Events
from serving.engine.answers import Answer
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Outcome
from serving.load.latency import Latency
from serving.load.target import Target

_RETRY_S = 1e-3


@dataclass(frozen=True, kw_only=True)
class ClosedLoopResult:
    """What callers saw.

    Attributes:
        callers: how many.
        seconds: how long it was measured.
        answered: windows answered in that time.
        unanswered: windows refused, expired or failed in that time.
        latency: of the answered, from submission to the answer on the caller's thread.
    """

    callers: int
    seconds: float
    answered: int
    unanswered: int
    latency: Latency

    @property
    def windows_per_s(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


def closed_loop(
    target: Target,
    windows: Iterable[Events],
    *,
    callers: int,
    duration_s: float,
    warm_up_s: float = 0.5,
    deadline_s: float = 1.0,
) -> ClosedLoopResult:
    """Keeps one window of each caller in flight.

    Args:
        target: the engine.
        windows: windows without end.
        callers: how many.
        duration_s: seconds to measure.
        warm_up_s: seconds before that.
        deadline_s: seconds within which an answer is of use.

    Raises:
        NotReadyError: the engine has ended.
    """
    loop = _Loop(target, iter(windows), deadline_s)
    everyone = [_Caller(loop) for _ in range(callers)]
    for caller in everyone:
        caller.ask()
    loop.run(target.clock() + warm_up_s)
    loop.latencies.clear()
    loop.unanswered = 0
    start = target.clock()
    loop.run(start + duration_s)
    seconds = target.clock() - start
    result = ClosedLoopResult(
        callers=callers,
        seconds=seconds,
        answered=len(loop.latencies),
        unanswered=loop.unanswered,
        latency=Latency.of(np.array(loop.latencies)),
    )
    loop.over = True
    while any(caller.waiting for caller in everyone):
        target.wait(target.clock() + deadline_s)
    return result


class _Loop:
    """What the callers share."""

    def __init__(self, target: Target, windows: Iterator[Events], deadline_s: float) -> None:
        self.clock = target.clock
        self.submit = target.engine.submit_window
        self.windows = windows
        self.deadline_s = deadline_s
        self.latencies: list[float] = []
        self.unanswered = 0
        self.refused: list[_Caller] = []
        self.over = False
        self._wait = target.wait

    def run(self, until: float) -> None:
        """Hands out answers until a time. Callers that were refused ask again in a while."""
        while (now := self.clock()) < until:
            again, self.refused = self.refused, []
            for caller in again:
                caller.ask()
            self._wait(min(now + _RETRY_S, until) if self.refused else until)


class _Caller:
    __slots__ = ("_asked", "_loop", "waiting")

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._asked = 0.0
        self.waiting = False

    def ask(self) -> None:
        loop = self._loop
        self._asked = loop.clock()
        try:
            loop.submit(next(loop.windows), deadline_s=loop.deadline_s, on_done=self._done)
        except (BusyError, InfeasibleError):
            loop.unanswered += 1
            loop.refused.append(self)
            return
        self.waiting = True

    def _done(self, outcome: Outcome) -> None:
        loop = self._loop
        self.waiting = False
        if isinstance(outcome, Answer):
            loop.latencies.append(loop.clock() - self._asked)
        else:
            loop.unanswered += 1
        if not loop.over:
            self.ask()
