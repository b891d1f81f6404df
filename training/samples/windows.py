"""Windows of a session, each with its spikes and the velocity at one of its bins.

Two kinds, those of the common offline protocols. Sliding windows are labelled at their last bin, so
they are causal. Event windows surround an event, by default from 100 ms before to 500 ms after the
onset of movement, and are labelled at the event: whatever decodes them sees spikes from after the
moment that it decodes, and its score is not comparable with a causal one.

Consecutive sliding windows overlap: at 600 ms and a stride of 50 ms they share 550 ms, or 91.7 %,
and so nearly all their spikes. A split must therefore be made by trial, before windows are cut,
never over windows: `trials` takes one side of such a split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.session import FloatArray, Session


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Sliding windows.

    Attributes:
        length_s: length in seconds.
        stride_s: from the start of one to the start of the next, in seconds.
        cross_trials: whether windows run over the edges of trials, and over the gaps between.
    """

    length_s: float = 0.6
    stride_s: float = 0.05
    cross_trials: bool = False


@dataclass(frozen=True, kw_only=True)
class EventWindowConfig:
    """One window a trial, around an event.

    Attributes:
        event: name of the event.
        before_s: from the window's start to the event, in seconds.
        after_s: from the event to the window's end, in seconds.
        cross_trials: whether windows may run over the edges of their trial.
    """

    event: str = "move_onset"
    before_s: float = 0.1
    after_s: float = 0.5
    cross_trials: bool = False


@dataclass(frozen=True, kw_only=True)
class Windows:
    """W windows of one length, as columns.

    Attributes:
        session: what they were cut from.
        n_bins: bins in a window.
        first_bin: (W,) session bin of each one's first bin.
        label_bin: bin within the window that the label belongs to.
        velocity: (W, 2) labels.
        trial: (W,) trial that the label lies in; -1 between trials.
        left_out: windows that are missing for want of a label, of the event, or of room.
    """

    session: Session
    n_bins: int
    first_bin: IntArray
    label_bin: int
    velocity: FloatArray
    trial: IntArray
    left_out: int

    def __len__(self) -> int:
        """Windows in all."""
        return len(self.first_bin)

    def events(self, index: int) -> Events:
        """The spikes of one window, with time counted from its first bin."""
        first = int(self.first_bin[index])
        return self.session.events.between(first, first + self.n_bins).shifted(-first)

    def gather(self, rows: IntArray) -> tuple[IntArray, Events]:
        """The spikes of many windows at once.

        Args:
            rows: (R,) which windows.

        Returns:
            row: (E,) for each event, the place of its window in `rows`, ascending.
            events: of all these windows, with time counted from each one's first bin.
        """
        source = self.session.events
        first = self.first_bin[rows]
        lo, hi = np.searchsorted(source.time_bin, (first, first + self.n_bins))
        count = hi - lo
        row = np.repeat(np.arange(len(rows)), count)
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        at = lo[row] + within
        return row, Events(
            unit=source.unit[at], time_bin=source.time_bin[at] - first[row], value=source.value[at]
        )


def sliding_windows(
    session: Session, config: WindowConfig | None = None, trials: Sequence[int] | None = None
) -> Windows:
    """Windows at a stride, labelled with the velocity at their last bin.

    Each trial's windows begin at its first bin. With `cross_trials` they begin at the session's,
    keep their stride over every gap, and hold silence where no unit was observed.

    Args:
        session: the recording.
        config: length and stride; None for 600 ms at 50 ms.
        trials: keep windows whose label lies in these; None for all, between trials included.

    Raises:
        InputError: no behaviour, or a length or stride that is not a whole number of bins.
    """
    config = config or WindowConfig()
    session.require_behavior()
    n_bins = whole_bins(session, "length_s", config.length_s, least=1)
    stride = whole_bins(session, "stride_s", config.stride_s, least=1)
    if config.cross_trials:
        last = int(max(session.behavior.time_bin[-1] + 1, session.trials.stop_bin.max()))
        first_bin = np.arange(0, last - n_bins + 1, stride)
        trial = _trial_of(session, first_bin + n_bins - 1)
        keep = np.isin(trial, trials) if trials is not None else np.full(len(trial), True)
        first_bin, trial = first_bin[keep], trial[keep]
    else:
        chosen = _chosen(session, trials)
        start, stop = session.trials.start_bin[chosen], session.trials.stop_bin[chosen]
        count = np.maximum((stop - start - n_bins) // stride + 1, 0)
        row = np.repeat(np.arange(len(chosen)), count)
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        first_bin, trial = start[row] + within * stride, chosen[row]
    return _labelled(session, n_bins, first_bin, n_bins - 1, trial, left_out=0)


def event_windows(
    session: Session, config: EventWindowConfig | None = None, trials: Sequence[int] | None = None
) -> Windows:
    """One window a trial around an event, labelled with the velocity at the event.

    The window holds spikes from after the event: this is not a causal protocol.

    Args:
        session: the recording.
        config: the event and the span; None for -100 to +500 ms around the onset of movement.
        trials: which trials; None for all.

    Raises:
        InputError: no behaviour, no such event, or a span that is not a whole number of bins.
    """
    config = config or EventWindowConfig()
    session.require_behavior()
    before = whole_bins(session, "before_s", config.before_s, least=0)
    after = whole_bins(session, "after_s", config.after_s, least=1)
    chosen = _chosen(session, trials)
    event = session.event_bin(config.event)[chosen]
    first_bin = event - before
    keep = (event >= 0) & (first_bin >= 0)
    if not config.cross_trials:
        keep &= first_bin >= session.trials.start_bin[chosen]
        keep &= event + after <= session.trials.stop_bin[chosen]
    return _labelled(
        session, before + after, first_bin[keep], before, chosen[keep], left_out=int((~keep).sum())
    )


def whole_bins(session: Session, name: str, seconds: float, *, least: int | None = None) -> int:
    """A time as a number of the session's bins.

    Args:
        session: whose grid counts.
        name: of the time, for the message.
        seconds: the time.
        least: fewest bins that have a meaning; None for any, negative ones included.

    Raises:
        InputError: the time is not a whole number of bins, or is too short.
    """
    exact = seconds / session.grid.bin_s
    # Neither infinity nor NaN can be rounded.
    whole = math.isfinite(exact) and abs(exact - round(exact)) < 1e-6
    if not whole or (least is not None and round(exact) < least):
        lowest = "" if least is None else f", at least {least}"
        raise InputError(
            f"session {session.session_id!r}: {name} is {seconds} s, expected a whole number of "
            f"bins of {session.grid.bin_s} s{lowest}"
        )
    return round(exact)


def _chosen(session: Session, trials: Sequence[int] | None) -> IntArray:
    return np.asarray(range(len(session.trials)) if trials is None else trials, np.int64)


def _trial_of(session: Session, bins: IntArray) -> IntArray:
    """The trial that each bin lies in, or -1. Where trials overlap, the one that began last."""
    trials = session.trials
    owner = np.full(max(int(trials.stop_bin.max()), int(bins.max(initial=0)) + 1), -1)
    for trial in np.argsort(trials.start_bin, kind="stable").tolist():
        owner[trials.start_bin[trial] : trials.stop_bin[trial]] = trial
    return owner[bins].astype(np.int64)


def _labelled(
    session: Session,
    n_bins: int,
    first_bin: IntArray,
    label_bin: int,
    trial: IntArray,
    *,
    left_out: int,
) -> Windows:
    velocity, labelled = session.behavior.at(first_bin + label_bin)
    return Windows(
        session=session,
        n_bins=n_bins,
        first_bin=first_bin[labelled],
        label_bin=label_bin,
        velocity=velocity[labelled],
        trial=trial[labelled],
        left_out=left_out + int((~labelled).sum()),
    )
