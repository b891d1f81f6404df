"""Earliest deadline first, in batches of one kind."""

import heapq
import itertools
from dataclasses import dataclass, field

from serving.engine.jobs import DecodeJob, DecodeStream, StepJob, TimedJob


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to do next.

    Attributes:
        batch: jobs of one kind to run together, empty if there is nothing to run.
        expired: jobs whose deadline has passed; answer them, do not run them.
        abandoned: jobs whose client has left.
    """

    batch: list[TimedJob] = field(default_factory=list)
    expired: list[TimedJob] = field(default_factory=list)
    abandoned: list[TimedJob] = field(default_factory=list)


class Scheduler:
    """A queue ordered by deadline. Pure: no clock, no thread.

    A stream's steps keep the order in which they came, whatever their deadlines, and a batch
    holds at most one step of each stream.
    """

    def __init__(self, *, max_batch: int) -> None:
        """An empty queue.

        Args:
            max_batch: jobs in a batch at most.
        """
        self._max_batch = max_batch
        self._heaps: dict[type[TimedJob], list[tuple[float, int, TimedJob]]] = {
            DecodeJob: [],
            StepJob: [],
        }
        self._arrivals = itertools.count()
        self._tails: dict[DecodeStream, tuple[float, int]] = {}

    def __len__(self) -> int:
        """Jobs queued."""
        return sum(len(heap) for heap in self._heaps.values())

    def add(self, job: TimedJob) -> None:
        """Queues a job."""
        key = job.deadline, next(self._arrivals)
        if isinstance(job, StepJob):
            # Never ahead of a step of the same stream that still waits.
            tail = self._tails.get(job.stream, key)
            key = max(key[0], tail[0]), key[1]
            self._tails[job.stream] = key
        heapq.heappush(self._heaps[type(job)], (*key, job))

    def put_back(self, job: StepJob) -> None:
        """Queues a step that needs another turn, ahead of every later step of its stream."""
        key = job.deadline, -next(self._arrivals)
        self._tails.setdefault(job.stream, key)
        heapq.heappush(self._heaps[StepJob], (*key, job))

    def select(self, now: float) -> Selection:
        """Takes out the next batch, and on the way whatever needs no computing."""
        selection = Selection()
        heads = [(heap[0][:2], heap) for heap in self._heaps.values() if heap]
        if not heads:
            return selection
        _, heap = min(heads, key=lambda head: head[0])
        streams: set[DecodeStream] = set()
        deferred = []
        while heap and len(selection.batch) < self._max_batch:
            entry = heapq.heappop(heap)
            job = entry[2]
            if isinstance(job, StepJob) and job.stream in streams:
                deferred.append(entry)
                continue
            if isinstance(job, StepJob) and self._tails.get(job.stream) == entry[:2]:
                del self._tails[job.stream]
            if job.abandoned:
                selection.abandoned.append(job)
            elif job.deadline < now:
                selection.expired.append(job)
            else:
                if isinstance(job, StepJob):
                    streams.add(job.stream)
                selection.batch.append(job)
        for entry in deferred:
            heapq.heappush(heap, entry)
        return selection
