"""Work that pauses often, so that several pieces of it can share one device.

A piece of work is a generator: it yields wherever another may go on, and returns its result. A
small model's step occupies a GPU only in part; steps of several fits, each on its own CUDA stream,
overlap there.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TypeAlias, TypeVar

ResultT = TypeVar("ResultT")
Work: TypeAlias = Generator[None, None, ResultT]


def finished(work: Work[ResultT]) -> ResultT:
    """Does the whole of a piece of work and returns its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def in_turns(works: Iterable[Work[ResultT]], at_once: int) -> Iterator[ResultT]:
    """Results of many pieces of work, each as soon as it is there.

    Args:
        works: the pieces; the next one is taken only when there is room for it.
        at_once: how many advance in turns.
    """
    rest = iter(works)
    going: deque[Work[ResultT]] = deque()
    while True:
        while len(going) < at_once and (work := next(rest, None)) is not None:
            going.append(work)
        if not going:
            return
        work = going.popleft()
        try:
            next(work)
        except StopIteration as end:
            yield end.value
        else:
            going.append(work)
