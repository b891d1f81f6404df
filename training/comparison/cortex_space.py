"""What is tried of Cortex."""

from dataclasses import replace
from pathlib import Path

from cortex.session import Session
from training.comparison.cortex_candidate import CortexCandidate
from training.comparison.search_space import SearchSpace
from training.fitting.recipe import recipe


def cortex_space(
    session: Session, *, size: str = "nano", init_from: Path | None = None
) -> SearchSpace[CortexCandidate]:
    """Around the recording's recipe.

    Args:
        session: the recording, or the first of several that one model learns from.
        size: the model's size.
        init_from: checkpoint directory to start from.
    """
    # The inner split judges candidates; early stopping would take more trials away.
    config = replace(recipe(session, size), validation_share=0.0)
    return SearchSpace(
        base=CortexCandidate(config=config, init_from=init_from),
        choices={
            "config.dropout": (0.2, 0.4, 0.5),
            "config.fit.steps": (400, 600, 900),
            "config.fit.masked_weight": (0.0, 0.02, 0.05),
            "config.fit.expert_weight": (1.0, 3.0),
            "config.fit.augmentation.event_dropout": (0.2, 0.3, 0.4),
            "config.fit.augmentation.unit_dropout": (0.4, 0.6, 0.8),
            "config.fit.augmentation.unit_mixing": (0.6, 1.0),
        },
    )
