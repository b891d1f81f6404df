"""Training settings that suit a recording, by its size."""

import numpy as np

from cortex.session import Session
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.samples.augmentation import AugmentationConfig

# Fewer labelled bins than this and a recording is small: it needs heavy regularisation.
SMALL_BINS = 5_000
# Trials differ in length tenfold between tasks; a batch holds about this many steps of them.
STEPS_A_BATCH = 1_000


def recipe(session: Session) -> TrainConfig:
    """A starting point; the binaries' flags override its parts."""
    bins = np.mean(session.trials.stop_bin - session.trials.start_bin)
    batch = int(np.clip(STEPS_A_BATCH * session.grid.bins_per_step / bins, 4, 32))
    if len(session.behavior.time_bin) < SMALL_BINS:
        return TrainConfig(
            dropout=0.4,
            fit=FitConfig(
                steps=600,
                batch_trials=batch,
                augmentation=AugmentationConfig(event_dropout=0.4, unit_dropout=0.7),
            ),
        )
    return TrainConfig(
        dropout=0.05,
        fit=FitConfig(
            steps=400,
            batch_trials=batch,
            augmentation=AugmentationConfig(event_dropout=0.05, unit_dropout=0.2),
        ),
    )
