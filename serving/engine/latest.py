"""The newest velocity of every open stream, for who drives a device at a rate of its own."""

import numpy as np

from cortex.errors import InputError
from serving.engine.model import IntArray
from serving.engine.outbox import Decoded
from serving.engine.records import where
from serving.engine.stalled import Latest, StalledPolicy


class LatestVelocities:
    """Columns over the streams' places. Used by the host's thread only."""

    def __init__(self, *, places: int, policy: StalledPolicy) -> None:
        """No stream is open.

        Args:
            places: what stream names are counted modulo; see StreamTable.
            policy: what becomes of a velocity as it ages.
        """
        self._places = places
        self._policy = policy
        self._stream = np.full(places, -1, np.int64)
        self._velocity = np.zeros((places, 2), np.float32)
        self._submitted = np.full(places, -np.inf)

    def opened(self, stream_B: IntArray) -> None:
        """B streams were opened. Until its first answer a stream is stale."""
        place_B = stream_B % self._places
        self._stream[place_B] = stream_B
        self._velocity[place_B] = 0
        self._submitted[place_B] = -np.inf

    def closed(self, stream: int) -> None:
        """A stream was closed."""
        place = stream % self._places
        if self._stream[place] == stream:
            self._stream[place] = -1

    def update(self, decoded: Decoded) -> None:
        """Steps were decoded. Those of streams that are closed by now are left out."""
        stream_B, place_B, submitted_B, velocity_B2 = decoded
        mine = where(self._stream[place_B] == stream_B)
        self._velocity[place_B[mine]] = velocity_B2[mine]
        self._submitted[place_B[mine]] = submitted_B[mine]

    def at(self, stream: int, *, now: float, step_s: float) -> Latest:
        """A stream's velocity now.

        Args:
            stream: an open stream.
            now: on the engine's clock.
            step_s: seconds between its steps.

        Raises:
            InputError: the stream is not open.
        """
        place = stream % self._places
        if self._stream[place] != stream or stream < 0:
            raise InputError(f"stream {stream} is closed, or was never opened")
        x, y = self._velocity[place].tolist()
        age_s = now - float(self._submitted[place])
        return self._policy.at((x, y), age_s=age_s, step_s=step_s)
