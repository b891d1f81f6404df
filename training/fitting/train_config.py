"""What to train, and how."""

from dataclasses import dataclass, field
from typing import Any

from training.fitting.fit_config import FitConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One decoder's making.

    Attributes:
        size: a named model size.
        dropout: of the residual updates.
        shape: fields of the model's configuration that depart from the size's, such as
            {"weighting": "softmax"}.
        validation_share: share of the training trials that early stopping looks at and does not
            learn from; 0 trains on all of them for the whole schedule.
        fit: the optimisation.
    """

    size: str = "nano"
    dropout: float = 0.2
    shape: dict[str, Any] = field(default_factory=dict)
    validation_share: float = 0.0
    fit: FitConfig = field(default_factory=FitConfig)
