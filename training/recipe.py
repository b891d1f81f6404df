"""Training settings that suit a recording, by its size."""

from cortex.session import Session
from training.augmentation import AugmentationConfig
from training.fit import FitConfig
from training.train_decoder import TrainConfig

# Fewer labelled bins than this and a recording is small: it needs heavy regularisation.
SMALL_BINS = 5_000


def recipe(session: Session) -> TrainConfig:
    """A starting point; the binaries' flags override its parts."""
    if len(session.behavior.time_bin) < SMALL_BINS:
        return TrainConfig(
            dropout=0.4,
            fit=FitConfig(
                steps=600,
                batch_trials=32,
                augmentation=AugmentationConfig(event_dropout=0.4, unit_dropout=0.7),
            ),
        )
    return TrainConfig(
        dropout=0.1,
        fit=FitConfig(
            steps=250,
            batch_trials=16,
            augmentation=AugmentationConfig(event_dropout=0.2, unit_dropout=0.4),
        ),
    )
