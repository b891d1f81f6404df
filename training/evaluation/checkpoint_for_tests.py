"""A small decoder with a few steps of training behind it, for tests."""

from collections.abc import Sequence

from cortex.checkpoint import Checkpoint
from cortex.session import Session
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, train_decoder


def make_checkpoint(session: Session, train: Sequence[int], *, split_seed: int = 0) -> Checkpoint:
    """A nano model after three large steps, its card naming the session and the split."""
    return train_decoder(
        [TrainingSession(session=session, trials=train)],
        TrainConfig(dropout=0.0, fit=FitConfig(steps=3, batch_trials=8, learning_rate=1e-2)),
        card={"split_seed": split_seed},
    )
