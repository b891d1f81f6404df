"""An adapted decoder that still knows the units of its source."""

from dataclasses import replace

import torch

from cortex.checkpoint import Checkpoint
from cortex.model import Model
from training.fitting.initialise import UNIT_TABLES


def with_units_of(source: Checkpoint, adapted: Checkpoint) -> Checkpoint:
    """The adapted decoder with the source's other units after its own, as the source has them.

    Adaptation moved the rest of the weights: how well it still decodes the source's recordings is
    to be measured.
    """
    own = set(adapted.unit_ids)
    rows = [row for row, name in enumerate(source.unit_ids) if name not in own]
    weights = adapted.model.state_dict()
    theirs = source.model.state_dict()
    for table in weights.keys() & set(UNIT_TABLES):
        others = theirs[table][torch.tensor(rows, dtype=torch.int64)]
        weights[table] = torch.cat([weights[table], others])
    vocabulary = (*adapted.unit_ids, *(source.unit_ids[row] for row in rows))
    model = Model(replace(adapted.model.config, n_units=len(vocabulary)))
    model.load_state_dict(weights)
    return replace(adapted, model=model.eval(), unit_ids=vocabulary, digest="")
