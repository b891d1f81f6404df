"""Puts down the answers to steps, and hands out the jobs that have all of theirs."""

import numpy as np

from serving.engine.frames_block import FramesBlock
from serving.engine.outbox import Outbox
from serving.engine.records import Records, take
from serving.engine.step_queue import StepQueue


class StepAnswers:
    """Where the answers to steps go.

    Attributes:
        digests: of the models so far; the last is that of the one that serves.
    """

    def __init__(self, queue: StepQueue, outbox: Outbox, *, digest: str) -> None:
        """Begins with a model.

        Args:
            queue: knows the blocks that the steps came in.
            outbox: where jobs go.
            digest: the model's.
        """
        self._queue = queue
        self._outbox = outbox
        self.digests: tuple[str, ...] = (digest,)

    def settle(self, records: Records, answers: Records) -> None:
        """Steps, of WAITING, have answers, of ANSWER."""
        for block, part, rows in self._queue.by_block(records):
            self._outbox.outcomes += block.answer(rows, take(answers, part), self.digests)

    def fail(self, records: Records, error: Exception) -> None:
        """Steps, of WAITING, have no answer, all for one reason."""
        for block, _, rows in self._queue.by_block(records):
            self._outbox.outcomes += block.fail(rows, error, self.digests)

    def fail_row(self, block: FramesBlock, row: int, error: Exception) -> None:
        """A step that is not queued has no answer."""
        self._outbox.outcomes += block.fail(np.array([row]), error, self.digests)
