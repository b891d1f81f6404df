"""An adapted decoder that still knows the units of its source."""

from dataclasses import replace

import torch

from cortex.checkpoint import Checkpoint
from cortex.model import Model
from training.fitting.initialise import UNIT_EMBEDDING


def with_units_of(source: Checkpoint, adapted: Checkpoint) -> Checkpoint:
    """The adapted decoder with the source's other units after its own, embeddings unchanged.

    Adaptation moved the rest of the weights: how well it still decodes the source's recordings is
    to be measured.
    """
    own = set(adapted.unit_ids)
    rows = [row for row, name in enumerate(source.unit_ids) if name not in own]
    weights = adapted.model.state_dict()
    others = source.model.state_dict()[UNIT_EMBEDDING][torch.tensor(rows, dtype=torch.int64)]
    weights[UNIT_EMBEDDING] = torch.cat([weights[UNIT_EMBEDDING], others])
    vocabulary = (*adapted.unit_ids, *(source.unit_ids[row] for row in rows))
    model = Model(replace(adapted.model.config, n_units=len(vocabulary)))
    model.load_state_dict(weights)
    return replace(adapted, model=model.eval(), unit_ids=vocabulary, digest="")
