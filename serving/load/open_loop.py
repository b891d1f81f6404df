"""Windows that arrive when they arrive, whether or not those before are answered."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from cortex.events import Events
from serving.engine.answers import Answer
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Outcome
from serving.load.latency import Latency
from serving.load.target import Target

# Of those that are due at once, this many are submitted between two looks for answers.
_BURST = 16


@dataclass(frozen=True, kw_only=True)
class OpenLoopResult:
    """What windows that arrived at a rate saw.

    Attributes:
        rate: arrivals a second, on average.
        seconds: how long it was measured.
        due: windows that were to arrive in that time.
        refused: of them, those that the engine did not take.
        failed: of them, those that it took and did not answer.
        latency: of all of them, from the moment that each was due, not when it was submitted.
            What was not answered counts as endlessly late.
    """

    rate: float
    seconds: float
    due: int
    refused: int
    failed: int
    latency: Latency


def open_loop(
    target: Target,
    windows: Iterable[Events],
    *,
    rate: float,
    duration_s: float,
    warm_up_s: float = 0.5,
    deadline_s: float = 0.1,
    seed: int = 0,
) -> OpenLoopResult:
    """Submits windows at the times of a Poisson process, and waits for all answers.

    Args:
        target: the engine.
        windows: windows without end.
        rate: arrivals a second, on average.
        duration_s: seconds to measure.
        warm_up_s: seconds before that.
        deadline_s: seconds from when a window is due within which its answer is of use.
        seed: of the random arrivals.

    Raises:
        NotReadyError: the engine has ended.
    """
    total_s = warm_up_s + duration_s
    after = _arrivals(rate, total_s, seed)
    start = target.clock()
    due = (start + after).tolist()
    log = _Log(target, len(due))
    source, sent = iter(windows), 0
    while sent < len(due):
        for at in due[sent : sent + _BURST]:
            now = target.clock()
            if at > now:
                break
            # Even one that the generator is late with is the engine's to refuse.
            log.submit(sent, at, next(source), at + deadline_s - now)
            sent += 1
        target.wait(due[sent] if sent < len(due) else start + total_s)
    while log.waiting:
        target.wait(target.clock() + deadline_s)
    counted = after >= warm_up_s
    return OpenLoopResult(
        rate=rate,
        seconds=duration_s,
        due=int(counted.sum()),
        refused=int((counted & log.refused).sum()),
        failed=int((counted & ~log.refused & np.isinf(log.latency)).sum()),
        latency=Latency.of(log.latency[counted]),
    )


class _Log:
    def __init__(self, target: Target, size: int) -> None:
        self.waiting = 0
        self.latency = np.full(size, math.inf)
        self.refused = np.zeros(size, bool)
        self._clock = target.clock
        self._submit = target.engine.submit_window

    def submit(self, index: int, due: float, events: Events, deadline_s: float) -> None:
        try:
            self._submit(events, deadline_s=deadline_s, on_done=partial(self._done, index, due))
        except (BusyError, InfeasibleError):
            self.refused[index] = True
            return
        self.waiting += 1

    def _done(self, index: int, due: float, outcome: Outcome) -> None:
        self.waiting -= 1
        if isinstance(outcome, Answer):
            self.latency[index] = self._clock() - due


def _arrivals(rate: float, seconds: float, seed: int) -> npt.NDArray[np.float64]:
    """Times of a Poisson process in [0, seconds): so many, and each anywhere."""
    random = np.random.default_rng(seed)
    return np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
