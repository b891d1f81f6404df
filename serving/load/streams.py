"""Many streams at the pace of their model's steps, as one rig would drive them."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from cortex.ragged_events import RaggedEvents
from serving.engine.answers import ANSWERED, Flag, FramesAnswer
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Outcome
from serving.engine.model import IntArray
from serving.load.latency import Latency, Seconds
from serving.load.random_events import RandomSteps
from serving.load.target import Target

# Steps of one submission at most; a tick with more makes several.
_MAX_ROWS = 8192
_RESTARTED = np.uint8(Flag.RESTARTED)


@dataclass(frozen=True, kw_only=True)
class StreamsResult:
    """What the streams' steps saw.

    Attributes:
        streams: how many.
        seconds: how long it was measured.
        steps: steps that were due in that time.
        missed: of them, those refused, expired or failed, or answered later than the stream's next
            step was due.
        restarted: of them, those that lost what the stream had been told before.
        latency: of all of them, from when each was due. What was not answered counts as endlessly
            late.
        lag: of that, what passed before the step was submitted.
        queue: of that, what passed from then until the model was free for its batch.
        compute: of that, what its batch took.
    """

    streams: int
    seconds: float
    steps: int
    missed: int
    restarted: int
    latency: Latency
    lag: Latency
    queue: Latency
    compute: Latency

    def held(self, p99_ms: float) -> bool:
        """Whether no step was missed and the 99th percentile stayed under a bound."""
        return not self.missed and not self.restarted and self.latency.p99_ms < p99_ms


class Schedule:
    """When the steps of N streams are due, each at a phase of its own.

    Steps are numbered in the order in which they are due: step `k // N` of the stream at place
    `k % N`, streams in the order of their phases.
    """

    def __init__(self, phase_N: npt.NDArray[np.float64], step_s: float) -> None:
        """Args: when the streams' first steps are due, in [0, step_s) and sorted; their period."""
        self._phase_N = phase_N
        self._step_s = step_s
        # Two rounds: what follows a step in the order of phases is a slice of them.
        size = len(phase_N)
        self._place = np.tile(np.arange(size), 2)
        self._step = np.arange(2).repeat(size)
        self._due = np.concatenate([phase_N, phase_N + step_s])

    def due_by(self, seconds: float) -> int:
        """Steps due up to a time."""
        rounds, rest = divmod(seconds, self._step_s)
        return int(rounds) * len(self._phase_N) + int(self._phase_N.searchsorted(rest, "right"))

    def rows(self, first: int, stop: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
        """Places, step numbers and due times of steps first to stop, at most N."""
        step, start = divmod(first, len(self._phase_N))
        part = slice(start, start + stop - first)
        return self._place[part], self._step[part] + step, self._due[part] + step * self._step_s


def run_streams(
    target: Target,
    events: RandomSteps,
    *,
    streams: int,
    step_s: float,
    duration_s: float,
    warm_up_s: float = 1.0,
    tick_s: float = 1e-3,
    give_up: bool = False,
    seed: int = 0,
) -> StreamsResult:
    """Opens streams, runs them, and closes them.

    At each tick, the steps that have come due since the last are submitted as one job. Its deadline
    is when the next step of the last of its streams is due.

    Args:
        target: the engine.
        events: of the steps.
        streams: how many.
        step_s: seconds between two steps of a stream.
        duration_s: seconds to measure.
        warm_up_s: seconds before that.
        tick_s: seconds between two submissions.
        give_up: end soon after a step was missed that counts.
        seed: of the random phases.

    Raises:
        BusyError: the engine has no room for so many streams.
        NotReadyError: the engine has ended.
    """
    names = _open(target, streams)
    schedule = Schedule(np.sort(np.random.default_rng(seed).uniform(0, step_s, streams)), step_s)
    warm = math.ceil(warm_up_s / step_s) * streams
    total = warm + math.ceil(duration_s / step_s) * streams
    most = min(streams, _MAX_ROWS)
    log = _Log(target, total, step_s)
    start, sent, tick = target.clock(), 0, 0
    while sent < total and not (give_up and log.missed(warm, sent)):
        due = min(schedule.due_by(target.clock() - start), total)
        while sent < due:
            stop = min(due, sent + most)
            place, step, due_R = schedule.rows(sent, stop)
            log.submit(sent, names[place], step, events.take(stop - sent), start + due_R)
            sent = stop
        # A tick that was overslept is left out.
        tick = max(tick + 1, math.ceil((target.clock() - start) / tick_s))
        while target.clock() < start + tick * tick_s:
            target.wait(start + tick * tick_s)
    while log.waiting:
        target.wait(target.clock() + step_s)
    _close(target, names)
    seen = slice(warm, sent)
    return StreamsResult(
        streams=streams,
        seconds=(sent - warm) / streams * step_s,
        steps=sent - warm,
        missed=int((log.latency[seen] > step_s).sum()),
        restarted=int(log.restarted[seen].sum()),
        latency=Latency.of(log.latency[seen]),
        lag=Latency.of(log.lag[seen]),
        queue=Latency.of(log.queue[seen]),
        compute=Latency.of(log.compute[seen]),
    )


class _Log:
    """Latencies of all steps, infinite until they are answered."""

    def __init__(self, target: Target, size: int, step_s: float) -> None:
        # float32 is exact to a microsecond here, and there are millions.
        self.latency: Seconds = np.full(size, np.inf, np.float32)
        self.lag: Seconds = np.zeros(size, np.float32)
        self.queue: Seconds = np.full(size, np.inf, np.float32)
        self.compute: Seconds = np.full(size, np.inf, np.float32)
        self.restarted = np.zeros(size, bool)
        self._last_missed = -1
        self.waiting = 0
        self._clock = target.clock
        self._submit = target.engine.submit_frames
        self._step_s = step_s

    def missed(self, first: int, stop: int) -> bool:
        """Whether one of some steps was missed, as far as is known of those from the first on."""
        return first <= self._last_missed < stop

    def submit(
        self,
        first: int,
        stream_R: IntArray,
        step_R: IntArray,
        events: RaggedEvents,
        due_R: npt.NDArray[np.float64],
    ) -> None:
        now = self._clock()
        self.lag[first : first + len(due_R)] = now - due_R
        try:
            self._submit(
                stream_R,
                step_R,
                events,
                deadline_s=float(due_R[-1]) + self._step_s - now,
                on_done=partial(self._done, first, due_R),
            )
        except (BusyError, InfeasibleError):
            self._last_missed = first + len(due_R) - 1
            return
        self.waiting += 1

    def _done(self, first: int, due_R: npt.NDArray[np.float64], outcome: Outcome) -> None:
        self.waiting -= 1
        if not isinstance(outcome, FramesAnswer):
            self._last_missed = first + len(due_R) - 1
            return
        records, rows = outcome.records, slice(first, first + len(due_R))
        latency = self._clock() - due_R
        latency[records["status"] != ANSWERED] = np.inf
        if latency.max() > self._step_s:
            self._last_missed = first + len(due_R) - 1
        self.latency[rows] = latency
        self.queue[rows] = records["queue_s"]
        self.compute[rows] = records["compute_s"]
        self.restarted[rows] = records["flags"] & _RESTARTED


def _open(target: Target, streams: int) -> IntArray:
    opened: list[Outcome] = []
    target.engine.submit_open(opened.append, streams)
    while not opened:
        target.wait(target.clock() + 1.0)
    (names,) = opened
    if isinstance(names, Exception):
        raise names
    assert isinstance(names, np.ndarray)
    return names


def _close(target: Target, names: IntArray) -> None:
    closed: list[Outcome] = []
    for stream in names.tolist():
        target.engine.submit_close(stream, closed.append)
    while len(closed) < len(names):
        target.wait(target.clock() + 1.0)
