"""A session's decoders side by side, over all splits."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training.comparison.contest import Selected
from training.comparison.outcome import Scored
from training.oracle.ceiling import Ceiling


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One kind of decoder on one session.

    Attributes:
        kind: which.
        r2: R2 on the test trials, by split.
        parameters: largest number of what was learnt, over splits.
        fits: fits that were done for it, inner ones included.
        winners: the chosen settings, by split.
        inner_r2: the candidates' R2 on the inner folds, by split, in the order drawn.
        streamed_r2: by split, for kinds that stream.
        streamed_difference: largest difference of streamed to offline velocity, likewise.
        seconds: from the first step to the score, by split, of the fits that were scored on the
            test trials.
        ceiling_share: by split, R2 over the causal ceiling's on the ceiling's trials; only splits
            that test on all of those.
    """

    kind: str
    r2: dict[int, float]
    parameters: int
    fits: int
    winners: dict[int, dict[str, Any]]
    inner_r2: dict[int, list[float]]
    streamed_r2: dict[int, float]
    streamed_difference: dict[int, float]
    seconds: dict[int, float]
    ceiling_share: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean of R2 over the splits."""
        return statistics.fmean(self.r2.values())

    @property
    def sd(self) -> float:
        """Standard deviation of R2 over the splits; 0 for one."""
        return statistics.stdev(self.r2.values()) if len(self.r2) > 1 else 0.0


def standings(
    session: int, selected: Iterable[Selected], *, inner_folds: int, ceiling: Ceiling | None
) -> list[Standing]:
    """What every kind reached on one session, in the order of the kinds.

    Args:
        session: its index.
        selected: all results.
        inner_folds: fits of each candidate in a split.
        ceiling: the session's, where it is known.
    """
    by_kind: dict[str, list[tuple[Selected, Scored]]] = {}
    for each in selected:
        for scored in each.outcome.scored:
            if scored.session == session:
                by_kind.setdefault(each.contestant.kind, []).append((each, scored))
    return [
        Standing(
            kind=kind,
            r2={s.split: scored.trials.r2() for s, scored in pairs},
            parameters=max(s.outcome.parameters for s, _ in pairs),
            fits=sum(len(s.inner_r2) * inner_folds + 1 for s, _ in pairs),
            winners={s.split: s.outcome.settings for s, _ in pairs},
            inner_r2={s.split: s.inner_r2 for s, _ in pairs},
            streamed_r2={
                s.split: scored.streamed_r2 for s, scored in pairs if scored.streamed_r2 is not None
            },
            streamed_difference={
                s.split: scored.streamed_difference
                for s, scored in pairs
                if scored.streamed_difference is not None
            },
            seconds={s.split: s.outcome.seconds for s, _ in pairs},
            ceiling_share={
                s.split: scored.trials.r2(set(ceiling.trials)) / ceiling.r2_causal
                for s, scored in pairs
                if ceiling and set(ceiling.trials) <= set(scored.trials.trial)
            },
        )
        for kind, pairs in by_kind.items()
    ]
