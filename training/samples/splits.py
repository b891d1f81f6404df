"""Splits by trial, never by overlapping window."""

import numpy as np

from cortex.errors import InputError


def split_trials(
    n_trials: int, seed: int, train_fraction: float = 0.8
) -> tuple[list[int], list[int]]:
    """Training and held-out trials.

    Args:
        n_trials: trials in the session, in file order.
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
