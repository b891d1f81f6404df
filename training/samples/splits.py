"""Splits by trial, never by overlapping window."""

import numpy as np

from cortex.errors import InputError
from cortex.session import Session


def split_session(session: Session, seed: int) -> tuple[list[int], list[int]]:
    """Training and held-out trials of a recording, four fifths and one.

    Where a recording assigns trials to training or validation, as the benchmark's do, only those
    count: the others were aborted, or are its test trials.

    Raises:
        InputError: no behaviour, or fewer than two trials that count.
    """
    session.require_behavior()
    usable = session.trials.in_split("train", "val")
    if not len(usable):
        usable = np.arange(len(session.trials))
    parts = split_trials(len(usable), seed)
    train, held_out = (usable[part].tolist() for part in parts)
    return train, held_out


def split_trials(
    n_trials: int, seed: int, train_fraction: float = 0.8
) -> tuple[list[int], list[int]]:
    """Two parts of so many trials.

    Args:
        n_trials: trials, in file order.
        seed: of the permutation.
        train_fraction: share of the trials to train on; at least one is on either side.

    Raises:
        InputError: fewer than two trials.
    """
    if n_trials < 2:
        raise InputError(f"cannot split {n_trials} trial(s), expected at least 2")
    order = np.random.default_rng(seed).permutation(n_trials).tolist()
    n_train = min(max(int(n_trials * train_fraction), 1), n_trials - 1)
    return order[:n_train], order[n_train:]
