"""The score after k trials of a new recording: adapted, and trained from scratch on the same."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.session import Session
from training.adaptation.adaptation_config import AdaptationConfig
from training.adaptation.adapted_candidate import AdaptedCandidate
from training.adaptation.first_trials import first_trials
from training.adaptation.source import open_source
from training.adaptation.unseen import require_unseen
from training.comparison.candidate import Candidate
from training.comparison.cortex_candidate import CortexCandidate
from training.comparison.fit_log import FitLog
from training.comparison.job import Job, Part
from training.comparison.workers import KeyedJob
from training.fitting.provenance import session_digest
from training.fitting.recipe import recipe
from training.fitting.train_config import TrainConfig
from training.samples.splits import split_session


@dataclass(frozen=True, kw_only=True)
class Point:
    """One decoder's scores after one number of trials.

    Attributes:
        kind: "adapted" or "scratch".
        k: as it was asked for; None for all training trials.
        trials: learnt from.
        steps: optimiser steps.
        r2: on the held-out trials, by seed of the split.
    """

    kind: str
    k: int | None
    trials: int
    steps: int
    r2: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean over the splits."""
        return statistics.fmean(self.r2.values())

    @property
    def sd(self) -> float:
        """Standard deviation over the splits; 0 of one."""
        return statistics.stdev(self.r2.values()) if len(self.r2) > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON."""
        return {**asdict(self), "mean": self.mean, "sd": self.sd}


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A fit of the curve: which point it belongs to, and what to do."""

    kind: str
    k: int | None
    steps: int
    key: str
    job: Job


class Curve:
    """All fits of a curve."""

    def __init__(
        self,
        session: Session,
        adapted: AdaptedCandidate,
        config: Callable[[int], AdaptationConfig],
        *,
        ks: Sequence[int | None],
        splits: Sequence[int],
    ) -> None:
        """Plans.

        Args:
            session: the new recording.
            adapted: where to start from; its configuration is replaced.
            config: how to adapt to a number of trials.
            ks: numbers of trials; None for all.
            splits: seeds of the splits.

        Raises:
            InputError: a k that a split does not have, a repeated one, or a held-out trial that the
                source has learnt from.
        """
        if not ks or len(set(ks)) < len(ks):
            raise InputError("the numbers of trials repeat or there are none, expected some")
        source = open_source(adapted.model, adapted.recordings)
        digest = session_digest(session)
        self._fits: list[_Fit] = []
        for k in ks:
            for split in splits:
                train, test = split_session(session, split)
                require_unseen(source, session, test)
                learn = first_trials(session, train, k)
                part = Part(session=0, learn=tuple(learn), score=tuple(test))
                how = config(len(learn))
                scratch = _from_scratch(session, source.checkpoint, how)
                candidates: tuple[Candidate, ...] = (
                    replace(adapted, config=how),
                    CortexCandidate(config=scratch, kind="scratch"),
                )
                for candidate in candidates:
                    job = Job(candidate=candidate, parts=(part,), split=split)
                    self._fits.append(
                        _Fit(
                            kind=candidate.kind,
                            k=k,
                            steps=how.steps,
                            key=job.key([digest]),
                            job=job,
                        )
                    )

    def jobs(self) -> list[KeyedJob]:
        """Every fit."""
        return [(fit.key, fit.job) for fit in self._fits]

    def points(self, log: FitLog) -> list[Point]:
        """The curve's points, once all fits are in the log."""
        groups: dict[tuple[int | None, str], list[_Fit]] = {}
        for fit in self._fits:
            groups.setdefault((fit.k, fit.kind), []).append(fit)
        return [
            Point(
                kind=kind,
                k=k,
                trials=len(fits[0].job.parts[0].learn),
                steps=fits[0].steps,
                r2={fit.job.split: log[fit.key].r2 for fit in fits},
            )
            for (k, kind), fits in groups.items()
        ]


def _from_scratch(session: Session, source: Checkpoint, config: AdaptationConfig) -> TrainConfig:
    """The recording's recipe, with the source's shape and the adaptation's number of steps."""
    base = recipe(session)
    own = ("n_units", "grid", "dropout")
    shape = {n: v for n, v in source.model.config.to_dict().items() if n not in own}
    fit = replace(base.fit, steps=config.steps, seed=config.units.seed)
    return replace(base, size=source.name, shape=shape, fit=fit)
