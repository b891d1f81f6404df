"""How a model is adapted to a new recording."""

from dataclasses import dataclass, field, replace

from cortex.errors import InputError
from cortex.session import Session
from training.fitting.fit_config import FitConfig
from training.fitting.initialise import UNIT_TABLES
from training.fitting.recipe import recipe
from training.samples.augmentation import AugmentationConfig

# The rest of the network is fixed while embeddings learn, so nothing else has to hold them back.
UNVARIED = AugmentationConfig(event_dropout=0.0, unit_dropout=0.0)


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """Two stages: the new units' embeddings, then all weights.

    Attributes:
        dropout: of the residual updates, in both stages.
        prior_trials: trials that the source's mean and scale of the velocity count for, beside
            those of the new recording: one reach does not tell how fast hands move.
        units: the first stage; it trains what belongs to single units alone.
        whole: the second stage; None for the first one alone.
    """

    dropout: float
    prior_trials: float = 50.0
    units: FitConfig = field(default_factory=FitConfig)
    whole: FitConfig | None = None

    def __post_init__(self) -> None:
        """Raises InputError on what cannot be run."""
        if self.prior_trials < 0:
            raise InputError(
                f"adaptation: prior_trials is {self.prior_trials}, expected at least 0"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of both stages."""
        return self.units.steps + (self.whole.steps if self.whole else 0)


# Few trials are learnt by heart soon: the second stage grows with them, in steps and in rate.
UNIT_STEPS, UNIT_RATE = 80, 2e-3
WHOLE_STEPS_A_TRIAL, WHOLE_RATE, WHOLE_RATE_FROM = 4, 1e-3, 50


def adaptation_recipe(session: Session, n_trials: int) -> AdaptationConfig:
    """A starting point for a recording of which `n_trials` may be learnt from."""
    base = recipe(session)
    units = replace(
        base.fit,
        steps=UNIT_STEPS,
        learning_rate=UNIT_RATE,
        average_decay=0.9,
        masked_weight=0.1,
        train_only=UNIT_TABLES,
        keep_scale=True,
        augmentation=UNVARIED,
    )
    whole = replace(
        base.fit,
        steps=max(min(WHOLE_STEPS_A_TRIAL * n_trials, base.fit.steps), 1),
        learning_rate=WHOLE_RATE * min(n_trials / WHOLE_RATE_FROM, 1.0),
        keep_scale=True,
    )
    return AdaptationConfig(dropout=base.dropout, units=units, whole=whole)
