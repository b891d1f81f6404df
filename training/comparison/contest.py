"""Nested selection: every kind of decoder gets as many tries, and one look at the test trials.

For each outer split by trial and each kind, every candidate is fitted to a part of the training
trials and scored on the rest of them. The best one learns from all training trials and is scored
once on the test trials, by which nothing is chosen.

Source: Cawley and Talbot 2010, "On over-fitting in model selection and subsequent selection bias in
performance evaluation".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cortex.session import Session
from training.comparison.candidate import Candidate
from training.comparison.fit_log import FitLog
from training.comparison.job import Job, Part
from training.comparison.nested_split import Trials, nested_split
from training.comparison.outcome import Outcome
from training.comparison.workers import KeyedJob
from training.fitting.provenance import session_digest


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A kind of decoder, with all that is tried of it.

    Attributes:
        candidates: of one kind, the recipe first.
        sessions: indices of the sessions that one decoder learns from together.
        saves_as: beginning of the winners' checkpoint directories; None for kinds without one.
    """

    candidates: Sequence[Candidate]
    sessions: tuple[int, ...]
    saves_as: Path | None = None

    @property
    def kind(self) -> str:
        """The kind."""
        return self.candidates[0].kind


@dataclass(frozen=True, kw_only=True)
class Selected:
    """What became of a contestant in one split.

    Attributes:
        contestant: which.
        split: seed of the split.
        inner_r2: each candidate's mean over the inner folds; empty where there was one alone.
        outcome: the best one's, the first of equals, on the test trials.
    """

    contestant: Contestant
    split: int
    inner_r2: list[float]
    outcome: Outcome


class Contest:
    """All fits of a comparison, in the order in which they depend on one another."""

    def __init__(
        self,
        sessions: Sequence[Session],
        contestants: Sequence[Contestant],
        *,
        splits: Sequence[int],
        inner_folds: int,
    ) -> None:
        """Plans.

        Args:
            sessions: the recordings.
            contestants: what is compared.
            splits: seeds of the outer splits.
            inner_folds: as in `nested_split`.

        Raises:
            InputError: trials to score on hold too few labels.
        """
        self.sessions = sessions
        self._digests = [session_digest(session) for session in sessions]
        self._rounds = [(contestant, split) for contestant in contestants for split in splits]
        self._inner_folds = inner_folds
        self._splits = {
            (i, split): nested_split(session, split, inner_folds)
            for i, session in enumerate(sessions)
            for split in splits
        }

    def inner_jobs(self) -> Iterator[KeyedJob]:
        """Every candidate, on the inner folds of every split; one that stands alone has won."""
        for contestant, split in self._rounds:
            for candidate in contestant.candidates if len(contestant.candidates) > 1 else ():
                yield from self._inner_jobs(contestant, candidate, split)

    def outer_jobs(self, log: FitLog) -> Iterator[KeyedJob]:
        """The winners' refits, once all inner jobs are in the log."""
        for contestant, split in self._rounds:
            yield self._outer_job(contestant, split, self._inner_r2(contestant, split, log))

    def selected(self, log: FitLog) -> Iterator[Selected]:
        """What the fits amount to, once all jobs are in the log."""
        for contestant, split in self._rounds:
            inner_r2 = self._inner_r2(contestant, split, log)
            key, _ = self._outer_job(contestant, split, inner_r2)
            yield Selected(contestant=contestant, split=split, inner_r2=inner_r2, outcome=log[key])

    def _inner_jobs(
        self, contestant: Contestant, candidate: Candidate, split: int
    ) -> Iterator[KeyedJob]:
        for fold in range(self._inner_folds):
            parts = [(i, *self._splits[i, split].inner[fold]) for i in contestant.sessions]
            yield self._keyed(candidate, parts, split, fold, None)

    def _inner_r2(self, contestant: Contestant, split: int, log: FitLog) -> list[float]:
        if len(contestant.candidates) == 1:
            return []
        return [
            float(np.mean([log[key].r2 for key, _ in self._inner_jobs(contestant, each, split)]))
            for each in contestant.candidates
        ]

    def _outer_job(self, contestant: Contestant, split: int, inner_r2: Sequence[float]) -> KeyedJob:
        # A candidate that diverged has no R2, and is not the best.
        best = int(np.argmax(np.nan_to_num(inner_r2, nan=-np.inf))) if inner_r2 else 0
        winner = contestant.candidates[best]
        splits = [(i, self._splits[i, split]) for i in contestant.sessions]
        parts = [(i, nested.learn, nested.test) for i, nested in splits]
        place = contestant.saves_as
        save_to = place.with_name(f"{place.name}_split{split}") if place else None
        return self._keyed(winner, parts, split, None, save_to)

    def _keyed(
        self,
        candidate: Candidate,
        parts: Sequence[tuple[int, Trials, Trials]],
        split: int,
        fold: int | None,
        save_to: Path | None,
    ) -> KeyedJob:
        job = Job(
            candidate=candidate,
            parts=tuple(Part(session=i, learn=learn, score=score) for i, learn, score in parts),
            split=split,
            fold=fold,
            save_to=save_to,
        )
        return job.key(self._digests), job
