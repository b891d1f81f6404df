"""Steps that wait, as columns in the order in which they came, and those in the model."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from serving.engine.frames_block import WAITING, FramesBlock
from serving.engine.model import IntArray
from serving.engine.records import EVERY, Index, Records, join, take, where


class StepQueue:
    """A queue of W steps. Pure: no clock, no thread.

    Attributes:
        records: (W,) of WAITING.
        running: places of the streams of each batch in the model, the oldest first.
        changes: how often `records` or `running` have changed.
        unchecked: steps have come since it was last seen to that their streams are open.
    """

    def __init__(self, *, places: int) -> None:
        """An empty queue.

        Args:
            places: what stream names are counted modulo; see StreamTable.
        """
        self._blocks: dict[int, FramesBlock] = {}
        # Of a place, the first waiting step found; what it held before does not matter.
        self._first = np.zeros(places, np.int64)
        self.records: Records = np.zeros(0, WAITING)
        self.running: deque[IntArray] = deque()
        self.changes = 0
        self.unchecked = False

    def __len__(self) -> int:
        """Steps waiting."""
        return len(self.records)

    def add(self, block: FramesBlock) -> None:
        """Queues a block's steps behind all others, but for the wrong ones."""
        self._blocks[block.number] = block
        records = block.records
        if block.wrong:
            records = np.delete(records, list(block.wrong))
        self.records = join(self.records, records)
        self.changes += 1
        self.unchecked = True

    def put_back(self, records: Records) -> None:
        """Queues steps that need another turn ahead of all others."""
        self.records = join(records, self.records)
        self.changes += 1
        self.unchecked = True

    def begin(self, records: Records) -> None:
        """Steps are in the model, one of each stream."""
        self.running.append(records["place"])
        self.changes += 1

    def end(self) -> None:
        """The oldest batch has left the model."""
        self.running.popleft()
        self.changes += 1

    def ready(self) -> Index:
        """Which steps are the next of streams with none in the model: a stream's run in order."""
        place_W = self.records["place"]
        index_W = np.arange(len(place_W))
        # Of several values for one index the last stays, so backwards the first does.
        self._first[place_W[::-1]] = index_W[::-1]
        for place_B in self.running:
            self._first[place_B] = -1
        return where(self._first[place_W] == index_W)

    def take(self, index: Index) -> Records:
        """Takes steps out, by ascending index."""
        self.changes += 1
        taken = take(self.records, index)
        if index is EVERY:
            self.records = taken[:0]
        else:
            keep = np.ones(len(self.records), bool)
            keep[index] = False
            self.records = take(self.records, keep)
        return taken

    def by_block(self, records: Records) -> Iterator[tuple[FramesBlock, slice, Index]]:
        """Stretches of records of one block, and their rows there.

        A block that is settled by then is forgotten.
        """
        if not len(records):
            return
        number = records["block"]
        block = self._blocks[int(number[0])]
        if records is block.records:
            yield block, EVERY, EVERY
            self._forget(block)
            return
        bounds = ((number[1:] != number[:-1]).nonzero()[0] + 1).tolist()
        for start, stop in zip([0, *bounds], [*bounds, len(number)], strict=True):
            block, part = self._blocks[int(number[start])], slice(start, stop)
            yield block, part, records["row"][part]
            self._forget(block)

    def _forget(self, block: FramesBlock) -> None:
        if block.settled:
            self._blocks.pop(block.number, None)
