"""Who takes part in a comparison, by kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.errors import InputError
from cortex.session import Session
from training.comparison.contest import Contestant
from training.comparison.cortex_space import cortex_space
from training.comparison.gru_space import gru_space
from training.comparison.search_space import SearchSpace
from training.comparison.transformer_space import transformer_space
from training.comparison.wiener_candidate import wiener_space

KINDS = ("cortex", "wiener", "gru", "transformer")

# Where each kind that takes optimiser steps has its FitConfig.
_FITS = {"cortex": "config.fit", "gru": "fit", "transformer": "fit"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is asked of a comparison.

    Attributes:
        kinds: who takes part.
        budget: candidates a kind, or all where its space has fewer.
        seed: of the candidates' choice and of every fit.
        joint: one Cortex for all sessions; the others learn from one each.
        cortex_size: Cortex's size.
        init_from: checkpoint directory that Cortex starts from.
        precision: of Cortex's training, "fp32" or "bf16".
        max_steps: most optimiser steps of any fit; None for what the spaces say.
    """

    kinds: Sequence[str] = KINDS
    budget: int = 8
    seed: int = 0
    joint: bool = False
    cortex_size: str = "nano"
    init_from: Path | None = None
    precision: str = "fp32"
    max_steps: int | None = None


def contestants(sessions: Sequence[Session], entry: Entry, folder: Path) -> list[Contestant]:
    """The kinds with their candidates.

    Args:
        sessions: the recordings.
        entry: what is asked for.
        folder: where winners of kinds with checkpoints are saved.

    Raises:
        InputError: an unknown kind, a repeated one, or none.
    """
    unknown = [kind for kind in entry.kinds if kind not in KINDS]
    if unknown or not entry.kinds or len(set(entry.kinds)) < len(entry.kinds):
        raise InputError(
            f"kinds of decoders are {', '.join(entry.kinds) or 'none'}, expected some of "
            f"{', '.join(KINDS)}, each once"
        )
    alone = [(i,) for i in range(len(sessions))]
    together = [tuple(range(len(sessions)))]
    return [
        Contestant(
            candidates=_space(kind, sessions[members[0]], entry).draw(entry.budget, entry.seed),
            sessions=members,
            saves_as=folder / _name(sessions, members) if kind == "cortex" else None,
        )
        for kind in entry.kinds
        for members in (together if kind == "cortex" and entry.joint else alone)
    ]


def _space(kind: str, session: Session, entry: Entry) -> SearchSpace[Any]:
    space: SearchSpace[Any]
    if kind == "wiener":
        return wiener_space()
    if kind == "cortex":
        space = cortex_space(session, size=entry.cortex_size, init_from=entry.init_from)
        space = space.with_base("config.fit.precision", entry.precision)
    else:
        space = gru_space(session) if kind == "gru" else transformer_space(session)
    fit = _FITS[kind]
    space = space.with_base(f"{fit}.seed", entry.seed)
    return space.capped(f"{fit}.steps", entry.max_steps) if entry.max_steps else space


def _name(sessions: Sequence[Session], members: tuple[int, ...]) -> str:
    if len(members) == len(sessions):
        return "cortex"
    (only,) = members
    return f"cortex_{sessions[only].session_id.replace('/', '_')}"
