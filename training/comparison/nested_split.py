"""Trials to test on, and within the others trials to choose by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.errors import InputError
from cortex.session import Session
from training.samples.splits import split_session, split_trials
from training.samples.targets import trial_targets

Trials = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class NestedSplit:
    """One outer split of a session by trial, with inner ones of its training trials.

    Attributes:
        learn: outer training trials.
        test: outer test trials.
        inner: (learn, score) of each inner fold; both are parts of the outer training trials.
    """

    learn: Trials
    test: Trials
    inner: tuple[tuple[Trials, Trials], ...]


def nested_split(session: Session, seed: int, inner_folds: int) -> NestedSplit:
    """The outer split of a seed, and inner folds that follow from it.

    Args:
        session: the recording.
        seed: of the permutations.
        inner_folds: 1 holds a fifth of the training trials out; K of them hold a K-th out each.

    Raises:
        InputError: trials to score on hold too few labels.
    """
    learn, test = split_session(session, seed)
    if inner_folds == 1:
        parts = [split_trials(len(learn), seed)]
    else:
        order = np.random.default_rng(seed).permutation(len(learn))
        held_out = np.array_split(order, inner_folds)
        parts = [(np.setdiff1d(order, part).tolist(), part.tolist()) for part in held_out]
    inner = tuple((_chosen(learn, kept), _chosen(learn, seen)) for kept, seen in parts)
    for scored in (tuple(test), *(seen for _, seen in inner)):
        labels = sum(len(trial_targets(session, trial)[0]) for trial in scored)
        if labels < 2:
            raise InputError(
                f"session {session.session_id!r}: {len(scored)} trials to score on in split {seed} "
                f"hold {labels} velocity labels, expected at least 2"
            )
    return NestedSplit(learn=tuple(learn), test=tuple(test), inner=inner)


def _chosen(trials: Sequence[int], places: Sequence[int]) -> Trials:
    return tuple(trials[place] for place in places)
