"""What is tried of the GRU."""

from cortex.session import Session
from training.comparison.network_candidate import NetworkCandidate
from training.comparison.network_fit import base_fit, fit_choices, is_small
from training.comparison.search_space import SearchSpace


def gru_space(session: Session) -> SearchSpace[NetworkCandidate]:
    """Around two layers, with dropout of units and events."""
    small = is_small(session)
    return SearchSpace(
        base=NetworkCandidate(
            kind="gru",
            shape={"width": 128 if small else 256, "layers": 2, "dropout": 0.3 if small else 0.1},
            fit=base_fit(session, learning_rate=2e-3),
        ),
        choices={
            "shape.width": (64, 128, 256, 512),
            "shape.layers": (1, 2, 3),
            "shape.dropout": (0.1, 0.3, 0.5) if small else (0.0, 0.1, 0.3),
            "fit.learning_rate": (5e-4, 1e-3, 2e-3, 5e-3),
            **fit_choices(session),
        },
    )
