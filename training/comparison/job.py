"""One fit of a comparison, from the trials that it learns from to its score."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cortex.checkpoint import Checkpoint, save_checkpoint
from cortex.session import FloatArray, Session
from training.comparison.candidate import Candidate
from training.comparison.cortex_candidate import on_its_grid
from training.comparison.outcome import Outcome, Scored, TrialSums
from training.evaluation.streamed_decoding import stream_trials
from training.fitting.train_decoder import TrainingSession
from training.fitting.turns import Work
from training.samples.targets import trial_targets


@dataclass(frozen=True, kw_only=True)
class Part:
    """One session's trials in a fit.

    Attributes:
        session: its index among the compared sessions.
        learn: trials to learn from.
        score: trials to score on; none of them is learnt from.
    """

    session: int
    learn: tuple[int, ...]
    score: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A fit to do.

    Attributes:
        candidate: what is fitted.
        parts: trials of the sessions that one decoder learns from.
        split: seed of the outer split.
        fold: inner fold; None for the refit that is scored on the outer test trials.
        save_to: checkpoint directory, for kinds that have one.
    """

    candidate: Candidate
    parts: tuple[Part, ...]
    split: int
    fold: int | None = None
    save_to: Path | None = None

    def key(self, digests: Sequence[str]) -> str:
        """A digest of all that fixes the outcome.

        Args:
            digests: of the compared sessions.
        """
        parts = [(digests[p.session], p.learn, p.score) for p in self.parts]
        content = (self.candidate.kind, self.candidate.settings(), parts)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def performing(job: Job, key: str, sessions: Sequence[Session], device: str) -> Work[Outcome]:
    """Fits and scores, pausing after every step; saves the checkpoint where one is asked for."""
    started = time.perf_counter()
    trained = yield from job.candidate.training(
        [TrainingSession(session=sessions[p.session], trials=p.learn) for p in job.parts],
        device,
        {"split_seed": job.split, "test_trials": [list(p.score) for p in job.parts]},
    )
    checkpoint = trained.checkpoint if job.save_to else None
    scored = []
    for part in job.parts:
        session = sessions[part.session]
        decoded = trained.decode(session, part.score)
        scored.append(_scored(part, session, decoded, checkpoint, device))
    if checkpoint and job.save_to:
        ids = [sessions[p.session].session_id for p in job.parts]
        checkpoint.card["r2"] = {i: s.trials.r2() for i, s in zip(ids, scored, strict=True)}
        save_checkpoint(checkpoint, job.save_to)
    return Outcome(
        key=key,
        kind=job.candidate.kind,
        settings=job.candidate.settings(),
        split=job.split,
        fold=job.fold,
        parameters=trained.parameters,
        seconds=round(time.perf_counter() - started, 3),
        scored=scored,
    )


def _scored(
    part: Part,
    session: Session,
    decoded: Sequence[FloatArray],
    checkpoint: Checkpoint | None,
    device: str,
) -> Scored:
    true = [trial_targets(session, trial)[1] for trial in part.score]
    trials = TrialSums.of(part.score, true, decoded)
    if checkpoint is None:
        return Scored(session=part.session, trials=trials)
    streamed = stream_trials(checkpoint, on_its_grid(session, checkpoint), part.score, device)
    difference = np.abs(np.concatenate(streamed) - np.concatenate(decoded)).max()
    return Scored(
        session=part.session,
        trials=trials,
        streamed_r2=TrialSums.of(part.score, true, streamed).r2(),
        streamed_difference=float(difference),
    )
