"""What an evaluation finds: scores with their intervals, and what each decoder saw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.session import FloatArray
from training.evaluation.intervals import Interval, bootstrap_r2, bootstrap_r2_difference
from training.evaluation.metrics import velocity_r2


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The R2 of one decoder at the points of one protocol.

    Attributes:
        key: stable name of the decoder, part of a row's path.
        decoder: its name for readers.
        r2: velocity R2 over all points, the mean of x and y.
        interval: bootstrap interval of it; None where there are too few trials for one.
        future_s: seconds of spikes that it sees from after the moment that it decodes; negative
            where its spikes end before that moment.
        trials: trials with points.
        points: velocities scored.
    """

    key: str
    decoder: str
    r2: float
    interval: Interval | None
    future_s: float
    trials: int
    points: int

    @property
    def causal(self) -> bool:
        """Whether a decoder in real time could have given this answer."""
        return self.future_s <= 0

    @property
    def sees(self) -> str:
        """The last spikes seen, counted from the moment decoded, for readers."""
        ms = f"{abs(self.future_s) * 1000:.0f} ms"
        if self.future_s > 0:
            return f"FUTURE, until {ms} after"
        if self.future_s < 0:
            return f"causal, until {ms} before"
        return "causal, until the moment"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """R2 of one decoder less another's, at the same points.

    Attributes:
        decoder: key of the first one.
        baseline: key of the other.
        r2: the difference.
        interval: paired bootstrap interval; None where there are too few trials for one.
    """

    decoder: str
    baseline: str
    r2: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class ProtocolResult:
    """The figures of one protocol.

    Attributes:
        protocol: its name.
        figures: one a decoder.
        differences: between decoders.
        left_out_trials: held-out trials without a point, such as those without the event.
        not_run: why there is no figure; empty where there is one.
    """

    protocol: str
    figures: tuple[Figure, ...] = ()
    differences: tuple[Difference, ...] = ()
    left_out_trials: int = 0
    not_run: str = ""


def make_figure(
    key: str,
    decoder: str,
    true: Sequence[FloatArray],
    decoded: Sequence[FloatArray],
    *,
    future_s: float = 0.0,
) -> Figure:
    """Scores a decoder.

    Args:
        key: as in `Figure`.
        decoder: as in `Figure`.
        true: each trial's recorded velocity (n_i, 2); two points or more in all.
        decoded: each trial's decoded velocity, likewise.
        future_s: as in `Figure`.
    """
    return Figure(
        key=key,
        decoder=decoder,
        r2=velocity_r2(np.concatenate(true), np.concatenate(decoded)),
        interval=_or_none(bootstrap_r2(true, decoded)),
        future_s=future_s,
        trials=sum(len(t) > 0 for t in true),
        points=sum(map(len, true)),
    )


def make_difference(
    decoder: Figure,
    baseline: Figure,
    true: Sequence[FloatArray],
    decoded: Sequence[FloatArray],
    decoded_baseline: Sequence[FloatArray],
) -> Difference:
    """Compares two decoders that were scored on the same points."""
    return Difference(
        decoder=decoder.key,
        baseline=baseline.key,
        r2=decoder.r2 - baseline.r2,
        interval=_or_none(bootstrap_r2_difference(true, decoded, decoded_baseline)),
    )


def _or_none(interval: Interval) -> Interval | None:
    return None if math.isnan(interval[0]) else interval
