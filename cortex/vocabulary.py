"""The unit vocabulary: what a model calls the units of its sessions.

Spike sorting begins anew in every session, so unit 12 of one is not unit 12 of the next: a unit's
name carries its session's.
"""

import numpy as np

from cortex.errors import InputError
from cortex.events import Events, IntArray
from cortex.session import Session


def unit_names(session: Session) -> tuple[str, ...]:
    """The name of each of a session's units, in the order of their indices."""
    return tuple(f"{session.session_id}/{unit}" for unit in session.unit_ids)


def unit_table(session: Session, vocabulary: tuple[str, ...]) -> IntArray:
    """(units,) where each of a session's units stands in a vocabulary.

    Raises:
        InputError: the vocabulary lacks a unit.
    """
    index = {name: i for i, name in enumerate(vocabulary)}
    names = unit_names(session)
    unknown = [name for name in names if name not in index]
    if unknown:
        raise InputError(
            f"session {session.session_id!r}: {len(unknown)} of {len(names)} units, {unknown[0]!r} "
            "first, are not in the model's vocabulary; adapt the model to the session first"
        )
    return np.array([index[name] for name in names], np.int64)


def to_vocabulary(session: Session, vocabulary: tuple[str, ...]) -> Events:
    """The session's events with units numbered as a vocabulary numbers them.

    Raises:
        InputError: the vocabulary lacks a unit.
    """
    table, events = unit_table(session, vocabulary), session.events
    return Events(unit=table[events.unit], time_bin=events.time_bin, value=events.value)
