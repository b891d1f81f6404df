"""What is tried of the Transformer on binned counts."""

from cortex.session import Session
from training.comparison.network_candidate import NetworkCandidate
from training.comparison.network_fit import base_fit, fit_choices, is_small
from training.comparison.search_space import SearchSpace


def transformer_space(session: Session) -> SearchSpace[NetworkCandidate]:
    """Around 5 M parameters: six layers of width 256."""
    small = is_small(session)
    return SearchSpace(
        base=NetworkCandidate(
            kind="transformer",
            shape={"width": 256, "layers": 6, "heads": 4, "dropout": 0.3 if small else 0.1},
            fit=base_fit(session, learning_rate=5e-4),
        ),
        choices={
            "shape.width": (128, 256, 384),
            "shape.layers": (2, 4, 6),
            "shape.dropout": (0.1, 0.2, 0.3, 0.4) if small else (0.0, 0.1, 0.2),
            "fit.learning_rate": (2e-4, 5e-4, 1e-3, 2e-3),
            **fit_choices(session),
        },
    )
