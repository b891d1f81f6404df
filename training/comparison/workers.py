"""Does jobs: in turns in this process, or in several."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue

from cortex.errors import InputError
from cortex.session import Session
from training.comparison.job import Job, performing
from training.comparison.outcome import Outcome
from training.fitting.turns import in_turns

# A job with its key.
KeyedJob = tuple[str, Job]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where and how jobs are done.

    Attributes:
        device: "cpu" or "cuda".
        at_once: fits that take turns in a process; more than one pays on a GPU.
        processes: that share the jobs; 1 for this one alone.
    """

    device: str = "cpu"
    at_once: int = 1
    processes: int = 1


def performed(
    jobs: Sequence[KeyedJob], sessions: Sequence[Session], workplace: Workplace
) -> Iterator[Outcome]:
    """Outcomes, each as soon as it is there."""
    processes = min(workplace.processes, len(jobs))
    if processes <= 1:
        return _here(jobs, sessions, workplace)
    return _in_processes(jobs, sessions, workplace, processes)


def _here(
    jobs: Iterable[KeyedJob], sessions: Sequence[Session], workplace: Workplace
) -> Iterator[Outcome]:
    works = (performing(job, key, sessions, workplace.device) for key, job in jobs)
    return in_turns(works, workplace.at_once)


def _in_processes(
    jobs: Sequence[KeyedJob], sessions: Sequence[Session], workplace: Workplace, processes: int
) -> Iterator[Outcome]:
    # Started anew, not forked: a fork inherits neither CUDA nor the threads of OpenMP.
    context = multiprocessing.get_context("spawn")
    waiting: Queue[KeyedJob | None] = context.Queue()
    done: Queue[Outcome | InputError] = context.Queue()
    for job in [*jobs, *[None] * processes]:
        waiting.put(job)
    # Read by OpenMP and OpenBLAS as a worker loads them; this process has loaded them already.
    threads = max(len(os.sched_getaffinity(0)) // processes, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    workers = [
        context.Process(target=_work, args=(waiting, done, sessions, workplace), daemon=True)
        for _ in range(processes)
    ]
    try:
        for worker in workers:
            worker.start()
        for _ in jobs:
            outcome = _next(done, workers)
            if isinstance(outcome, InputError):
                raise outcome
            yield outcome
    finally:
        for worker in workers:
            worker.terminate()


def _work(
    waiting: "Queue[KeyedJob | None]",
    done: "Queue[Outcome | InputError]",
    sessions: Sequence[Session],
    workplace: Workplace,
) -> None:
    """What a worker process runs."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        for outcome in _here(iter(waiting.get, None), sessions, workplace):
            done.put(outcome)
    except InputError as error:
        done.put(error)


def _leave_with_parent() -> None:
    """Ends this process once its parent has gone, which may have had no time to end it."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _next(
    done: "Queue[Outcome | InputError]", workers: Sequence[BaseProcess]
) -> Outcome | InputError:
    """The next result. Raises RuntimeError where a worker died, which may not have put any."""
    while True:
        with suppress(queue.Empty):
            return done.get(timeout=1)
        for worker in workers:
            if worker.exitcode:
                raise RuntimeError(f"a worker process ended with status {worker.exitcode}")
