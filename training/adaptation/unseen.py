"""That no trial is scored which a decoder has learnt from."""

from collections.abc import Sequence
from typing import Any

from cortex.errors import InputError
from cortex.session import Session
from training.adaptation.source import Source
from training.fitting.provenance import session_digest


def require_unseen(source: Source, session: Session, trials: Sequence[int]) -> None:
    """Raises InputError if the source has seen one of a recording's held-out trials.

    The source's model and what that was adapted from have learnt from trials that their cards name;
    recordings that tell of its units are read whole.
    """
    digest = session_digest(session)
    if digest in source.digests:
        raise InputError(
            f"session {session.session_id!r} is among the source's sessions, expected others"
        )
    card: dict[str, Any] | None = source.checkpoint.card
    while card:
        for entry in card.get("sessions", ()):
            seen = set(entry["train_trials"]) & set(trials) if entry["digest"] == digest else ()
            if seen:
                raise InputError(
                    f"session {session.session_id!r}: model {source.checkpoint.name!r} learnt from "
                    f"{len(seen)} of the {len(trials)} held-out trials, expected none; give the "
                    "split seed that it was trained with, or another model"
                )
        card = card.get("adapted_from")
