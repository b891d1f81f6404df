"""How networks on binned counts are fitted: as Cortex is, with choices of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cortex.session import Session
from training.fitting.fit_config import FitConfig
from training.fitting.recipe import SMALL_BINS, recipe


def is_small(session: Session) -> bool:
    """Whether a recording is one that networks overfit."""
    return len(session.behavior.time_bin) < SMALL_BINS


def base_fit(session: Session, *, learning_rate: float) -> FitConfig:
    """The recording's recipe, with the length and the regularisation that suit dense networks.

    They know no kinds of movement, so that units of different trials are not mixed.
    """
    fit = recipe(session).fit
    unmixed = replace(fit.augmentation, unit_mixing=0.0)
    fit = replace(fit, learning_rate=learning_rate, augmentation=unmixed)
    if is_small(session):
        augmentation = replace(fit.augmentation, event_dropout=0.2, unit_dropout=0.3)
        return replace(fit, steps=600, weight_decay=0.1, augmentation=augmentation)
    augmentation = replace(fit.augmentation, event_dropout=0.05, unit_dropout=0.1)
    return replace(fit, steps=3000, batch_trials=32, weight_decay=0.02, augmentation=augmentation)


def fit_choices(session: Session) -> Mapping[str, Sequence[Any]]:
    """What is varied of any network's fit; Cortex's augmentation is theirs too."""
    if is_small(session):
        return {
            "fit.steps": (300, 600, 1000),
            "fit.weight_decay": (0.01, 0.1, 0.5),
            "fit.augmentation.event_dropout": (0.0, 0.2, 0.4),
            "fit.augmentation.unit_dropout": (0.0, 0.3, 0.6),
        }
    return {
        "fit.steps": (1500, 3000, 6000),
        "fit.batch_trials": (16, 32, 64),
        "fit.weight_decay": (0.01, 0.1),
        "fit.augmentation.event_dropout": (0.0, 0.05, 0.2),
        "fit.augmentation.unit_dropout": (0.0, 0.1, 0.3),
    }
