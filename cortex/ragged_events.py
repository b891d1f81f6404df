"""The events of many samples, one after another in three columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cortex.errors import InputError
from cortex.events import Events, event_ranges, out_of_range

# int64 or int32.
IntColumn = npt.NDArray[np.integer[Any]]
_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


@dataclass(frozen=True, kw_only=True)
class RaggedEvents:
    """Events of B samples, E in all; a sample's events lie together.

    Attributes:
        unit: (E,) index of the unit in the vocabulary.
        time_bin: (E,) bin index within the sample.
        value: (E,) spikes of the unit in the bin.
        count_B: (B,) events of each sample.
    """

    unit: IntColumn
    time_bin: IntColumn
    value: IntColumn
    count_B: IntColumn

    def __len__(self) -> int:
        """Samples."""
        return len(self.count_B)

    @classmethod
    def of(cls, samples: Sequence[Events]) -> "RaggedEvents":
        """The events of samples whose columns have one length each."""
        if len(samples) == 1:
            (one,) = samples
            return cls(
                unit=one.unit,
                time_bin=one.time_bin,
                value=one.value,
                count_B=np.array([len(one)]),
            )
        if not samples:
            return cls.silence(0)
        return cls(
            unit=np.concatenate([sample.unit for sample in samples]),
            time_bin=np.concatenate([sample.time_bin for sample in samples]),
            value=np.concatenate([sample.value for sample in samples]),
            count_B=np.array([len(sample.unit) for sample in samples]),
        )

    @classmethod
    def silence(cls, size: int) -> "RaggedEvents":
        """Samples without events."""
        none = np.empty(0, np.int64)
        return cls(unit=none, time_bin=none, value=none, count_B=np.zeros(size, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence["RaggedEvents"]) -> "RaggedEvents":
        """The samples of all parts, of which there is at least one, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            unit=np.concatenate([part.unit for part in parts]),
            time_bin=np.concatenate([part.time_bin for part in parts]),
            value=np.concatenate([part.value for part in parts]),
            count_B=np.concatenate([part.count_B for part in parts]),
        )

    @property
    def widest(self) -> int:
        """Events of the sample that has most; 0 of none."""
        return int(np.maximum.reduce(self.count_B, initial=0))

    def split(self) -> list[Events]:
        """Each sample's events."""
        stops = np.cumsum(self.count_B).tolist()
        return [
            Events(
                unit=self.unit[start:stop].astype(np.int64, copy=False),
                time_bin=self.time_bin[start:stop].astype(np.int64, copy=False),
                value=self.value[start:stop].astype(np.int64, copy=False),
            )
            for start, stop in zip([0, *stops], stops, strict=False)
        ]

    def take(self, rows: npt.NDArray[np.int64]) -> "RaggedEvents":
        """Some of the samples, in the order given."""
        in_a_row = len(rows) > 0 and bool((rows == np.arange(rows[0], rows[0] + len(rows))).all())
        if in_a_row and len(rows) == len(self):
            return self
        count_R = self.count_B[rows]
        stop_B = np.cumsum(self.count_B)
        index: npt.NDArray[np.int64] | slice
        if in_a_row:
            index = slice(int(stop_B[rows[0]] - count_R[0]), int(stop_B[rows[-1]]))
        else:
            before_R = np.cumsum(count_R) - count_R
            start_R = stop_B[rows] - count_R
            index = np.repeat(start_R - before_R, count_R) + np.arange(count_R.sum())
        return RaggedEvents(
            unit=self.unit[index],
            time_bin=self.time_bin[index],
            value=self.value[index],
            count_B=count_R,
        )

    def check_lengths(self, where: str) -> None:
        """Raises InputError, saying where, unless the columns and the counts fit each other."""
        total = int(np.add.reduce(self.count_B))
        lengths = len(self.unit), len(self.time_bin), len(self.value)
        if lengths != (total,) * 3 or not _within(self.count_B, 0, total + 1):
            raise InputError(
                f"{where}: unit, time_bin and value have {lengths[0]}, {lengths[1]} and "
                f"{lengths[2]} events, expected the {total} that the samples' counts, 0 or more "
                "each, add up to"
            )

    def validated(
        self, *, n_units: int, n_bins: int, where: Callable[[int], str]
    ) -> tuple["RaggedEvents", dict[int, InputError]]:
        """The samples in time order, and what is wrong with those that are wrong.

        Args:
            n_units: size of the vocabulary; units are 0 to n_units - 1.
            n_bins: bins in a sample's span; time bins are 0 to n_bins - 1.
            where: what a sample came from, for its message.

        Returns:
            All B samples, the wrong ones without events; and for each wrong one the error that
            Events.validated would raise.
        """
        errors: dict[int, InputError] = {}
        for name, (low, high) in event_ranges(n_units, n_bins).items():
            column = getattr(self, name)
            if _within(column, low, high):
                continue
            bad = np.flatnonzero((column < low) | (column >= high))
            stop_B = np.cumsum(self.count_B)
            rows, first_bad = np.unique(np.searchsorted(stop_B, bad, "right"), return_index=True)
            for row, event in zip(rows.tolist(), bad[first_bad].tolist(), strict=True):
                if row not in errors:
                    first = int(stop_B[row] - self.count_B[row])
                    errors[row] = InputError(
                        out_of_range(where(row), event - first, name, int(column[event]), low, high)
                    )
        return (self._without(errors) if errors else self)._in_time_order(n_bins), errors

    def _without(self, rows: dict[int, InputError]) -> "RaggedEvents":
        keep_B = np.ones(len(self), bool)
        keep_B[list(rows)] = False
        keep = np.repeat(keep_B, self.count_B)
        return RaggedEvents(
            unit=self.unit[keep],
            time_bin=self.time_bin[keep],
            value=self.value[keep],
            count_B=np.where(keep_B, self.count_B, 0),
        )

    def _in_time_order(self, n_bins: int) -> "RaggedEvents":
        # Which events are before the one ahead of them, and do not begin a sample.
        back = np.zeros(len(self.time_bin) + 1, bool)
        np.less(self.time_bin[1:], self.time_bin[:-1], out=back[1:-1])
        back[self.count_B.cumsum()] = False
        if not np.count_nonzero(back):
            return self
        at = np.repeat(np.arange(len(self)) * n_bins, self.count_B) + self.time_bin
        order = np.argsort(at, kind="stable")
        return RaggedEvents(
            unit=self.unit[order],
            time_bin=self.time_bin[order],
            value=self.value[order],
            count_B=self.count_B,
        )


def _within(column: IntColumn, low: int, high: int) -> bool:
    """Whether all values are in [low, high): with one look, as what is below `low` wraps around."""
    above = (column - low if low else column).view(_UNSIGNED[column.dtype.itemsize])
    return bool(np.maximum.reduce(above, initial=0) < high - low)
