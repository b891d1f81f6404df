"""Spike events: (unit, time bin, count), the model's only input."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events in order of time bin, as three columns of one length E.

    Attributes:
        unit: (E,) index of the unit in its session's or model's vocabulary.
        time_bin: (E,) bin index, ascending.
        value: (E,) spikes of the unit in the bin, at least 1.
    """

    unit: IntArray
    time_bin: IntArray
    value: IntArray

    def __len__(self) -> int:
        """Events in all."""
        return len(self.unit)

    @classmethod
    def empty(cls) -> "Events":
        """No events: silence, which decodes like anything else."""
        none = np.empty(0, np.int64)
        return cls(unit=none, time_bin=none, value=none)

    @classmethod
    def from_counts(cls, counts: npt.NDArray[np.integer], first_bin: int = 0) -> "Events":
        """The non-zero entries of a count matrix.

        Args:
            counts: (bins, units) spikes of each unit in each bin.
            first_bin: bin index of the first row.
        """
        time_bin, unit = np.nonzero(counts)
        return cls(
            unit=unit.astype(np.int64),
            time_bin=time_bin.astype(np.int64) + first_bin,
            value=counts[time_bin, unit].astype(np.int64),
        )

    def to_counts(self, n_bins: int, n_units: int, first_bin: int = 0) -> IntArray:
        """The (n_bins, n_units) count matrix of the events from first_bin on."""
        part = self.between(first_bin, first_bin + n_bins)
        counts = np.zeros((n_bins, n_units), np.int64)
        np.add.at(counts, (part.time_bin - first_bin, part.unit), part.value)
        return counts

    def between(self, first_bin: int, stop_bin: int) -> "Events":
        """The events of bins [first_bin, stop_bin), with their bins unchanged."""
        lo, hi = np.searchsorted(self.time_bin, (first_bin, stop_bin))
        return Events(unit=self.unit[lo:hi], time_bin=self.time_bin[lo:hi], value=self.value[lo:hi])

    def shifted(self, bins: int) -> "Events":
        """The same events, `bins` later."""
        return Events(unit=self.unit, time_bin=self.time_bin + bins, value=self.value)

    def validated(self, *, n_units: int, n_bins: int, where: str) -> "Events":
        """These events in time order, once checked against a vocabulary and a span.

        Args:
            n_units: size of the vocabulary; units are 0 to n_units - 1.
            n_bins: bins in the span; time bins are 0 to n_bins - 1.
            where: what the events came from, for the message.

        Raises:
            InputError: columns of unequal length, or the first event out of range.
        """
        self.check_lengths(where)
        columns = {"unit": self.unit, "time_bin": self.time_bin, "value": self.value}
        for name, (low, high) in event_ranges(n_units, n_bins).items():
            column = columns[name]
            bad = np.flatnonzero((column < low) | (column >= high))
            if len(bad):
                raise InputError(
                    out_of_range(where, int(bad[0]), name, int(column[bad[0]]), low, high)
                )
        order = np.argsort(self.time_bin, kind="stable")
        return Events(unit=self.unit[order], time_bin=self.time_bin[order], value=self.value[order])

    def check_lengths(self, where: str) -> None:
        """Raises InputError, saying where, unless the columns have one length."""
        if not len(self.unit) == len(self.time_bin) == len(self.value):
            raise InputError(
                f"{where}: unit, time_bin and value must have one length, "
                f"not {len(self.unit)}, {len(self.time_bin)} and {len(self.value)}"
            )


def event_ranges(n_units: int, n_bins: int) -> dict[str, tuple[int, int]]:
    """The [low, high) that each column of events must keep to, in the order they are checked."""
    return {"unit": (0, n_units), "time_bin": (0, n_bins), "value": (1, 1 << 15)}


def out_of_range(where: str, event: int, name: str, value: int, low: int, high: int) -> str:
    """What is said of an event that does not keep to a range."""
    return f"{where}: event {event} has {name} {value}, expected {low} to {high - 1}"
