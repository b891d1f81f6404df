"""An engine for tests: time passes when somebody waits, and a batch is one request."""

import heapq
import itertools
from collections.abc import Callable

import numpy as np

from cortex.events import Events
from cortex.ragged_events import RaggedEvents
from serving.engine.answers import ANSWER, ANSWERED, Answer, Flag, FramesAnswer
from serving.engine.errors import BusyError, ExpiredError
from serving.engine.jobs import Outcome
from serving.engine.model import IntArray

ANSWER_OF_WINDOW = Answer(
    velocity=(0.0, 0.0),
    context_steps=8,
    filled=0,
    flags=Flag(0),
    digest="",
    queue_s=0.0,
    compute_s=0.0,
    batch_size=1,
)


class VirtualEngine:
    """Serves one request after another, each in a given time. It is its own Target.

    Attributes:
        now: seconds on its clock.
        deadlines: when each request that was submitted stops being of use.
        frames: streams and steps of each job of steps.
        fail_every: each so many-th row is answered by an error.
        open_streams: streams that are open.
    """

    def __init__(self, *, service_s: float, max_queue: int = 1000, fail_every: int = 0) -> None:
        """Args: seconds of a request; requests that may wait; see the attributes."""
        self.now = 0.0
        self.deadlines: list[float] = []
        self.frames: list[tuple[IntArray, IntArray]] = []
        self.fail_every = fail_every
        self.open_streams: set[int] = set()
        self._service_s = service_s
        self._max_queue = max_queue
        self._free_at = 0.0
        self._rows = 0
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def engine(self) -> "VirtualEngine":
        """Where requests go."""
        return self

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def wait(self, until: float) -> None:
        """Goes on to a time, or to when the next request ends."""
        if self._ends and self._ends[0][0] <= until:
            at, _, hand_out = heapq.heappop(self._ends)
            self.now = max(self.now, at)
            hand_out()
        else:
            self.now = max(self.now, until)

    def submit_window(
        self, events: Events, *, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> None:
        """Queues a window."""
        failed = self._failed(1)[0]
        outcome = ExpiredError("expired") if failed else ANSWER_OF_WINDOW
        self._queue(deadline_s, lambda: on_done(outcome))

    def submit_frames(
        self,
        stream_N: IntArray,
        step_N: IntArray,
        events: RaggedEvents,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
    ) -> None:
        """Queues steps."""
        assert len(stream_N) == len(step_N) == len(events)
        assert self.open_streams.issuperset(stream_N.tolist())
        records = np.zeros(len(events), ANSWER)
        records["status"] = np.where(self._failed(len(events)), 504, ANSWERED)
        answer = FramesAnswer(records=records, errors={}, digests=())
        self._queue(deadline_s, lambda: on_done(answer))
        self.frames.append((stream_N, step_N))

    def submit_open(self, on_done: Callable[[Outcome], None], count: int = 1) -> None:
        """Opens streams."""
        names = np.arange(count) + 7000
        self.open_streams.update(names.tolist())
        self._later(self.now, lambda: on_done(names))

    def submit_close(self, stream: int, on_done: Callable[[Outcome], None]) -> None:
        """Closes a stream."""
        self.open_streams.remove(stream)
        self._later(self.now, lambda: on_done(None))

    def _failed(self, rows: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        counts = np.arange(self._rows, self._rows + rows) + 1
        self._rows += rows
        failed = counts % self.fail_every == 0 if self.fail_every else np.zeros(rows, bool)
        return np.asarray(failed, bool)

    def _queue(self, deadline_s: float, hand_out: Callable[[], None]) -> None:
        if len(self._ends) >= self._max_queue:
            raise BusyError("full")
        self.deadlines.append(self.now + deadline_s)
        self._free_at = max(self._free_at, self.now) + self._service_s
        self._later(self._free_at, hand_out)

    def _later(self, at: float, hand_out: Callable[[], None]) -> None:
        heapq.heappush(self._ends, (at, next(self._order), hand_out))
