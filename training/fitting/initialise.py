"""Starts a model from another's weights: pretraining, and new sessions of known subjects."""

import torch

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.model import Model

UNIT_EMBEDDING = "cross.tokenizer.unit.weight"
# Parameters with a row a unit; models of one kind of movement have no evidence.
UNIT_TABLES = (UNIT_EMBEDDING, "evidence.unit.weight")


@torch.no_grad()
def initialise(model: Model, vocabulary: tuple[str, ...], source: Checkpoint) -> int:
    """Copies every weight; what belongs to a unit that the source does not know stays fresh.

    Widths, depths and bins a step must agree. The bin's width in time need not: an attention that
    spans 8 steps of 50 ms is a start for one that spans 8 of 100 ms.

    Args:
        model: a fresh model.
        vocabulary: its units.
        source: what to start from.

    Returns:
        How many of the model's units the source knows.

    Raises:
        InputError: a tensor is missing, too many, or has another shape.
    """
    own, theirs = model.state_dict(), source.model.state_dict()
    for name in sorted({*own, *theirs} - set(UNIT_TABLES)):
        expected, found = (
            "none" if name not in state else f"shape {tuple(state[name].shape)}"
            for state in (own, theirs)
        )
        if found != expected:
            raise InputError(
                f"cannot start from model {source.name!r}: for {name} it has {found}, expected "
                f"{expected}; give the same size and the same number of bins a step"
            )
    known = {name: row for row, name in enumerate(source.unit_ids)}
    rows = [(i, known[name]) for i, name in enumerate(vocabulary) if name in known]
    if rows:
        mine, its = (torch.tensor(column) for column in zip(*rows, strict=True))
        for table in own.keys() & set(UNIT_TABLES):
            own[table][mine] = theirs[table][its]
    model.load_state_dict({**theirs, **{t: own[t] for t in own.keys() & set(UNIT_TABLES)}})
    return len(rows)
