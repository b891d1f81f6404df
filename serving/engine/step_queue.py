"""Steps that wait, as columns in the order in which they came."""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from serving.engine.frames_block import FramesBlock
from serving.engine.model import IntArray
from serving.engine.records import Records, join, take

# A record is one waiting step: its stream and the stream's place, where it is in its block, and how
# many missing steps of its stream have been run empty for it.
WAITING = np.dtype(
    [
        ("stream", np.int64),
        ("place", np.int64),
        ("step", np.int64),
        ("submitted", np.float64),
        ("deadline", np.float64),
        ("block", np.int64),
        ("row", np.int64),
        ("filled", np.int32),
    ]
)


class StepQueue:
    """A queue of W steps. Pure: no clock, no thread.

    Attributes:
        records: (W,) of WAITING.
        changes: how often they have changed.
    """

    def __init__(self, *, places: int) -> None:
        """An empty queue.

        Args:
            places: what stream names are counted modulo; see StreamTable.
        """
        self._places = places
        self._numbers = itertools.count()
        self._blocks: dict[int, FramesBlock] = {}
        # Of a place, the first waiting step found; what it held before does not matter.
        self._first = np.zeros(places, np.int64)
        self.records: Records = np.zeros(0, WAITING)
        self.changes = 0

    def __len__(self) -> int:
        """Steps waiting."""
        return len(self.records)

    def add(self, block: FramesBlock) -> None:
        """Queues a block's steps behind all others, but for the wrong ones."""
        number = next(self._numbers)
        self._blocks[number] = block
        records = np.zeros(len(block), WAITING)
        records["stream"] = block.stream_N
        records["place"] = block.stream_N % self._places
        records["step"] = block.step_N
        records["submitted"] = block.submitted_N
        records["deadline"] = block.deadline_N
        records["block"] = number
        records["row"] = np.arange(len(block))
        if block.wrong:
            records = np.delete(records, list(block.wrong))
        self.records = join(self.records, records)
        self.changes += 1

    def put_back(self, records: Records) -> None:
        """Queues steps that need another turn ahead of all others."""
        self.records = join(records, self.records)
        self.changes += 1

    def heads(self) -> npt.NDArray[np.bool_]:
        """(W,) which steps are the first of their streams. A stream's steps run in order."""
        place_W = self.records["place"]
        index_W = np.arange(len(place_W))
        # Of several values for one index the last stays, so backwards the first does.
        self._first[place_W[::-1]] = index_W[::-1]
        heads: npt.NDArray[np.bool_] = self._first[place_W] == index_W
        return heads

    def take(self, index: IntArray) -> Records:
        """Takes steps out, by ascending index."""
        self.changes += 1
        if len(index) == len(self.records):
            taken, self.records = self.records, self.records[:0]
            return taken
        taken = take(self.records, index)
        keep = np.ones(len(self.records), bool)
        keep[index] = False
        self.records = take(self.records, keep)
        return taken

    def by_block(self, records: Records) -> Iterator[tuple[FramesBlock, slice]]:
        """Stretches of records of one block. A block that is settled by then is forgotten."""
        if not len(records):
            return
        number = records["block"]
        bounds: list[int] = []
        if np.count_nonzero(number != number[0]):
            bounds = ((number[1:] != number[:-1]).nonzero()[0] + 1).tolist()
        starts, stops = [0, *bounds], [*bounds, len(number)]
        for start, stop in zip(starts, stops, strict=True):
            block = self._blocks[int(number[start])]
            yield block, slice(start, stop)
            if block.settled:
                self._blocks.pop(int(number[start]), None)
