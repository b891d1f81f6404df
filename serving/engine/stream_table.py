"""Every open stream: how far it has come, and which slot of the model holds its state."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.engine.answers import ANSWER
from serving.engine.errors import BusyError
from serving.engine.model import IntArray
from serving.engine.records import Records, put, take
from serving.engine.verdict import BoolArray, Placement, Verdict

_NO_SLOT = -1
# No name of a stream.
_CLOSED = np.iinfo(np.int64).min


@dataclass(kw_only=True)
class StreamCounts:
    """What happened to streams: states given up, streams begun again, steps behind their stream."""

    evicted: int = 0
    restarted: int = 0
    behind: int = 0


class StreamTable:
    """Columns over places; an open stream has a place, and a slot of the model unless evicted.

    A stream is named by `generation * places + place`, with a generation for each opening, so no
    name is used twice. An open stream can be told by its place alone. Used by the model thread
    only.

    Attributes:
        places: streams open at most.
        counts: what happened to streams since `take_counts`.
    """

    def __init__(self, *, places: int, slots: int, window_steps: int, idle_s: float) -> None:
        """No stream is open.

        Args:
            places: streams open at most.
            slots: of the model.
            window_steps: missing steps that can be filled at most.
            idle_s: seconds without a step after which a stream may lose its slot to another.
        """
        self.places = places
        self.counts = StreamCounts()
        self._window_steps = window_steps
        self._idle_s = idle_s
        self._free_places = list(range(places - 1, -1, -1))
        self._generation = np.zeros(places, np.int64)
        # The open stream of a place, if any.
        self._stream = np.full(places, _CLOSED)
        self._slot = np.full(places, _NO_SLOT, np.int64)
        self._first_step = np.zeros(places, np.int64)
        self._next_step = np.zeros(places, np.int64)
        self._answered_step = np.full(places, -1, np.int64)
        self._used_at = np.zeros(places)
        self._answer = np.zeros(places, ANSWER)
        self.lose_all(slots)

    def lose_all(self, slots: int) -> None:
        """Every stream's state is lost: a model with so many slots takes over."""
        self._slot[:] = _NO_SLOT
        self._free_slots = list(range(slots - 1, -1, -1))

    def take_counts(self) -> StreamCounts:
        """What happened to streams since the last call."""
        counts, self.counts = self.counts, StreamCounts()
        return counts

    def is_open(self, stream_B: IntArray, place_B: IntArray) -> BoolArray:
        """Which of B streams are open. Their names are given, and what places these mean."""
        opened: BoolArray = self._stream[place_B] == stream_B
        return opened

    def open(self, count: int, now: float, needed: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
        """Opens streams that begin with step 0.

        Args:
            count: how many.
            now: on the engine's clock.
            needed: places of streams with steps waiting or in the model, which keep their slots.

        Returns:
            The (count,) streams, and the slots to reset.

        Raises:
            BusyError: no place, or no slot, is left for all of them. None is opened.
        """
        if count > len(self._free_places):
            raise BusyError(
                f"{self.places} streams may be open, and {count} more would be too many"
            )
        slot = self._claim(count, now, needed, all_or_none=True)
        if len(slot) < count:
            raise BusyError(f"every stream slot is taken: {count} asked for, {len(slot)} left")
        place = np.array([self._free_places.pop() for _ in range(count)], np.int64)
        self._generation[place] += 1
        stream: IntArray = self._generation[place] * self.places + place
        self._stream[place] = stream
        self._slot[place] = slot
        self._first_step[place] = self._next_step[place] = 0
        self._answered_step[place] = -1
        self._used_at[place] = now
        return stream, np.array(slot, np.int64)

    def close(self, stream: int) -> None:
        """Gives the stream's place and slot back, if it is open."""
        place = stream % self.places
        if self._stream[place] == stream:
            self.lose(np.array([place]))
            self._stream[place] = _CLOSED
            self._free_places.append(place)

    def lose(self, place_B: IntArray) -> None:
        """The state of B open streams is of no use: they begin again with their next step."""
        slot_B = self._slot[place_B]
        self._free_slots.extend(slot_B[slot_B != _NO_SLOT].tolist())
        self._slot[place_B] = _NO_SLOT

    def place(
        self, place_B: IntArray, step_B: IntArray, now: float, needed: Sequence[IntArray]
    ) -> Placement:
        """Judges a step each of B distinct open streams, and finds slots for those without.

        Args:
            place_B: the streams' places.
            step_B: the number of each one's step.
            now: on the engine's clock.
            needed: places of streams with steps waiting, these B among them, or in the model.
        """
        slot_B = self._slot[place_B]
        ahead_B = step_B - self._next_step[place_B]
        lost_B = slot_B == _NO_SLOT
        verdict_B = np.zeros(len(place_B), np.int64)  # Verdict.RUN
        restarted_B = np.zeros(len(place_B), bool)
        if not (np.count_nonzero(ahead_B) or np.count_nonzero(lost_B)):
            # Each is the next of a stream whose state is there.
            return Placement(verdict_B, slot_B, restarted_B, ahead_B, self._context(place_B))
        verdict_B[~lost_B & (ahead_B > 0)] = Verdict.FILL
        verdict_B[~lost_B & (ahead_B > self._window_steps)] = Verdict.AHEAD
        verdict_B[ahead_B < 0] = Verdict.BEHIND
        verdict_B[step_B == self._answered_step[place_B]] = Verdict.DUPLICATE
        self.counts.behind += int((verdict_B == Verdict.BEHIND).sum())

        restarts = np.flatnonzero(lost_B & (verdict_B == Verdict.RUN))
        slots = self._claim(len(restarts), now, needed)
        verdict_B[restarts[len(slots) :]] = Verdict.NO_SLOT
        restarts = restarts[: len(slots)]
        self.counts.restarted += len(restarts)
        again = place_B[restarts]
        self._slot[again] = slots
        self._first_step[again] = self._next_step[again] = step_B[restarts]
        restarted_B[restarts] = True
        return Placement(
            verdict_B, self._slot[place_B], restarted_B, ahead_B, self._context(place_B)
        )

    def begin(self, place_B: IntArray, now: float) -> None:
        """B streams have a step in the model from now on."""
        self._used_at[place_B] = now

    def filled(self, place_B: IntArray) -> None:
        """The model has taken a missing step of B open streams."""
        self._next_step[place_B] += 1

    def answered(self, place_B: IntArray, step_B: IntArray, answer_B: Records) -> None:
        """The model has taken a step of B open streams; the answers are kept for who asks again."""
        self._next_step[place_B] = step_B + 1
        self._answered_step[place_B] = step_B
        put(self._answer, place_B, answer_B)

    def answer(self, place_B: IntArray) -> Records:
        """The last answers of B open streams."""
        return take(self._answer, place_B)

    def _claim(
        self, count: int, now: float, needed: Sequence[IntArray], *, all_or_none: bool = False
    ) -> list[int]:
        """Slots for `count` streams, or as many as there are: free ones, then evicted ones.

        Asked for all or none, it evicts nobody when there are too few.
        """
        missing = count - len(self._free_slots)
        if missing > 0:
            victims = self._idle_longest(missing, now, needed)
            if all_or_none and len(victims) < missing:
                return [*self._free_slots, *self._slot[victims].tolist()]
            self.counts.evicted += len(victims)
            self.lose(victims)
        cut = max(len(self._free_slots) - count, 0)
        claimed = self._free_slots[cut:]
        del self._free_slots[cut:]
        return claimed

    def _idle_longest(self, count: int, now: float, needed: Sequence[IntArray]) -> IntArray:
        """At most `count` places whose streams may lose their slots, the longest idle first."""
        idle = (self._slot != _NO_SLOT) & (self._used_at <= now - self._idle_s)
        for place_B in needed:
            idle[place_B] = False
        victims = np.flatnonzero(idle)
        return victims[np.argsort(self._used_at[victims], kind="stable")[:count]]

    def _context(self, place_B: IntArray) -> IntArray:
        """(B,) steps, at most the window, that the next answer of B open streams rests on."""
        steps_B = self._next_step[place_B] - self._first_step[place_B] + 1
        context_B: IntArray = np.minimum(steps_B, self._window_steps)
        return context_B
