"""Spikes and velocity of every trial on one clock that starts at an event.

The Neural Latents Benchmark scores behaviour so (Pei et al. 2021, "Neural Latents Benchmark '21"):
5 ms bins from 250 ms before to 450 ms after the onset of movement, against the velocity some
100 ms after the spikes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.errors import InputError
from cortex.events import IntArray
from cortex.session import FloatArray, Session
from training.samples.windows import whole_bins


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """N trials of T bins on one clock.

    Attributes:
        trial: (N,) index of each trial in the session.
        spikes: (N, T, units) spikes of each unit in each bin.
        velocity: (N, T, 2) mean velocity in the bin that is `lag_s` after the spikes' bin.
        time_s: (T,) start of each spike bin, counted from the event.
        left_out: trials without the event, or whose span lacks a label or begins before bin 0.
    """

    trial: IntArray
    spikes: IntArray
    velocity: FloatArray
    time_s: FloatArray
    left_out: int


def aligned(
    session: Session,
    *,
    event: str = "move_onset",
    before_s: float = 0.25,
    after_s: float = 0.45,
    bin_s: float = 0.005,
    lag_s: float = 0.1,
    trials: Sequence[int] | None = None,
) -> Aligned:
    """Every trial's spikes and velocity around an event.

    The first bin starts `before_s` before the bin of the session's grid that holds the event: a
    grid of 1 ms places the event to 1 ms. Spans may run over the edges of their trial. A unit that
    was not observed in part of a span counts as silent there.

    Args:
        session: the recording.
        event: name of the event.
        before_s: from the first bin's start to the event.
        after_s: from the event to the last bin's end.
        bin_s: width of a bin, a multiple of the session's.
        lag_s: how long after a bin's spikes its velocity is taken; may be negative.
        trials: which trials; None for all.

    Raises:
        InputError: no behaviour, no such event, or times that the grid does not divide.
    """
    session.require_behavior()
    width = whole_bins(session, "bin_s", bin_s, least=1)
    before = whole_bins(session, "before_s", before_s)
    after = whole_bins(session, "after_s", after_s)
    lag = whole_bins(session, "lag_s", lag_s)
    n_bins, rest = divmod(before + after, width)
    if rest or n_bins < 1:
        raise InputError(
            f"session {session.session_id!r}: {before_s} s before to {after_s} s after the event, "
            f"expected a whole number of bins of {bin_s} s, at least 1"
        )
    chosen = np.asarray(range(len(session.trials)) if trials is None else trials, np.int64)
    event_bin = session.event_bin(event)[chosen]
    start = event_bin - before
    fine, labelled = session.behavior.at(start[:, None] + lag + np.arange(n_bins * width))
    fine = fine.reshape(len(chosen), n_bins, width, 2)
    # Samples missing within a bin leave it its label, as they do on the session's own grid.
    n_labels = labelled.reshape(len(chosen), n_bins, width).sum(2)
    keep = (event_bin >= 0) & (start >= 0) & (n_labels > 0).all(1)
    velocity = fine[keep].sum(2) / n_labels[keep][:, :, None]
    return Aligned(
        trial=chosen[keep],
        spikes=_spikes(session, start[keep], n_bins, width),
        velocity=velocity.astype(np.float32),
        time_s=((np.arange(n_bins) * width - before) * session.grid.bin_s).astype(np.float32),
        left_out=int((~keep).sum()),
    )


def _spikes(session: Session, start: IntArray, n_bins: int, width: int) -> IntArray:
    """Spikes (N, n_bins, units) from each start on."""
    events = session.events
    spikes = np.zeros((len(start), n_bins, len(session.unit_ids)), np.int64)
    lo, hi = np.searchsorted(events.time_bin, (start, start + n_bins * width))
    for row, (first, a, b) in enumerate(zip(start, lo, hi, strict=True)):
        at = (events.time_bin[a:b] - first) // width, events.unit[a:b]
        np.add.at(spikes[row], at, events.value[a:b])
    return spikes
