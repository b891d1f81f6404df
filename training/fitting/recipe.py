"""Training settings that suit a recording, by its size."""

import numpy as np

from cortex.session import Session
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.samples.augmentation import AugmentationConfig

# Fewer labelled bins than this and a recording is small: a few minutes, which a network learns by
# heart unless it is varied at every turn.
SMALL_BINS = 5_000
# More than this and it is large: an hour, which a network takes long to learn.
LARGE_BINS = 200_000
# Trials differ in length tenfold between tasks; a batch holds about this many steps of them.
STEPS_A_BATCH = 1_000
# Wider networks take smaller steps.
LEARNING_RATES = {"nano": 2e-3, "XS": 1.5e-3, "S": 8e-4, "M": 5e-4}
# Steps on a large recording: wider networks learn as much from fewer.
LARGE_STEPS = {"nano": 2500, "XS": 2500, "S": 2000, "M": 1500}


def recipe(session: Session, size: str = "nano") -> TrainConfig:
    """A starting point; the binaries' flags override its parts.

    Args:
        session: the recording.
        size: the model's size.
    """
    bins = np.mean(session.trials.stop_bin - session.trials.start_bin)
    batch = int(np.clip(STEPS_A_BATCH * session.grid.bins_per_step / bins, 4, 32))
    rate = LEARNING_RATES.get(size, min(LEARNING_RATES.values()))
    labelled = len(session.behavior.time_bin)
    # Predicting hidden spikes helps where labels are few, and takes capacity where they are many:
    # 0.03 of R2 on an hour of reaches.
    if labelled < SMALL_BINS:
        return TrainConfig(
            size=size,
            dropout=0.4,
            shape={"movements": 8},
            fit=FitConfig(
                steps=600,
                batch_trials=batch,
                learning_rate=rate,
                embedding_eps=1e-3,
                augmentation=AugmentationConfig(
                    event_dropout=0.3, unit_dropout=0.6, unit_mixing=1.0
                ),
            ),
        )
    if labelled > LARGE_BINS:
        return TrainConfig(
            size=size,
            dropout=0.1,
            fit=FitConfig(
                steps=LARGE_STEPS.get(size, max(LARGE_STEPS.values())),
                batch_trials=32,
                learning_rate=rate,
                weight_decay=0.1,
                masked_weight=0.0,
                average_decay=0.99,
                validate_every=250,
                augmentation=AugmentationConfig(event_dropout=0.05, unit_dropout=0.4),
            ),
        )
    return TrainConfig(
        size=size,
        dropout=0.05,
        fit=FitConfig(
            steps=400,
            batch_trials=batch,
            learning_rate=rate,
            masked_weight=0.0,
            augmentation=AugmentationConfig(event_dropout=0.05, unit_dropout=0.2),
        ),
    )
