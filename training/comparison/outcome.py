"""What one fit scored: plain numbers, so that a finished fit is a line of JSON."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cortex.session import FloatArray


@dataclass(frozen=True, kw_only=True)
class TrialSums:
    """What R2 over any set of trials needs of each of them.

    Attributes:
        trial: which trials.
        sums: a row a trial: points, then of x and y the sum, the sum of squares, and the sum of
            squared errors.
    """

    trial: list[int]
    sums: list[list[float]]

    @classmethod
    def of(
        cls, trials: Sequence[int], true: Sequence[FloatArray], decoded: Sequence[FloatArray]
    ) -> "TrialSums":
        """Sums of each trial's recorded and decoded velocity (n, 2)."""
        rows = []
        for t, d in zip(true, decoded, strict=True):
            exact = t.astype(np.float64)
            columns = exact.sum(0), (exact**2).sum(0), ((exact - d) ** 2).sum(0)
            rows.append([float(len(t)), *np.concatenate(columns).tolist()])
        return cls(trial=list(trials), sums=rows)

    def r2(self, trials: Collection[int] | None = None) -> float:
        """R2 of each dimension over all points of the trials, then the mean of x and y.

        Args:
            trials: some of these; None for all.
        """
        chosen = [s for t, s in zip(self.trial, self.sums, strict=True) if _in(t, trials)]
        points, *rest = np.sum(chosen, axis=0)
        total, squares, errors = np.reshape(rest, (3, 2))
        return float(np.mean(1 - errors / (squares - total**2 / points)))


def _in(trial: int, trials: Collection[int] | None) -> bool:
    return trials is None or trial in trials


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One session's part of an outcome.

    Attributes:
        session: its index among the compared sessions.
        trials: the scored trials.
        streamed_r2: R2 of decoding step by step, for kinds that can.
        streamed_difference: largest difference of that to decoding whole trials, in the velocity's
            unit.
    """

    session: int
    trials: TrialSums
    streamed_r2: float | None = None
    streamed_difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished fit.

    Attributes:
        key: of the job.
        kind: of decoder.
        settings: of the candidate.
        split: seed of the outer split.
        fold: inner fold; None for the refit that is scored on the outer test trials.
        parameters: numbers that were learnt.
        seconds: from its first step to its score, other fits' turns included.
        scored: by session.
    """

    key: str
    kind: str
    settings: dict[str, Any]
    split: int
    fold: int | None
    parameters: int
    seconds: float
    scored: list[Scored] = field(default_factory=list)

    @property
    def r2(self) -> float:
        """Mean over the sessions."""
        return float(np.mean([s.trials.r2() for s in self.scored]))

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Outcome":
        """The inverse of to_json. Raises KeyError or TypeError on other fields."""
        scored = [Scored(**{**s, "trials": TrialSums(**s["trials"])}) for s in fields["scored"]]
        return cls(**{**fields, "scored": scored})
