"""The first k training trials of a split."""

from collections.abc import Sequence

from cortex.errors import InputError
from cortex.session import Session


def first_trials(session: Session, train: Sequence[int], k: int | None) -> list[int]:
    """The first k of a split's training trials, or all.

    A split's order is random, so that these are a random choice, and a larger k adds to a smaller.

    Raises:
        InputError: k is not one of 1 to all.
    """
    count = len(train) if k is None else k
    if not 1 <= count <= len(train):
        raise InputError(
            f"session {session.session_id!r}: cannot learn from {count} trials, expected 1 to "
            f"{len(train)}, the training trials of the split"
        )
    return list(train[:count])
