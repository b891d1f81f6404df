"""Two recordings of one population under different names, for tests."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from cortex.checkpoint import Checkpoint
from cortex.events import IntArray
from cortex.session import Session
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, train_decoder
from training.samples.augmentation import AugmentationConfig
from training.samples.session_for_tests import UNITS, make_session

TRIALS = 80
# The source learns from the first part; the new recording's trials are the rest.
SOURCE_TRIALS = range(50)
NEW_TRIALS = range(50, 60)
HELD_OUT = range(60, 80)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A recording, a decoder of it, and the recording with its units in another order.

    Attributes:
        first: the source's recording.
        source: a decoder of it.
        new: the same units under other names.
        twin: (units,) the first recording's unit that each of the new one's is.
    """

    first: Session
    source: Checkpoint
    new: Session
    twin: IntArray


@cache
def planted() -> Planted:
    """Makes the recordings and trains the source."""
    first = make_session(TRIALS)
    place = np.random.default_rng(1).permutation(UNITS)
    events = replace(first.events, unit=place[first.events.unit])
    source = train_decoder(
        [TrainingSession(session=first, trials=SOURCE_TRIALS)],
        TrainConfig(
            dropout=0.0,
            fit=FitConfig(
                steps=120,
                batch_trials=8,
                augmentation=AugmentationConfig(event_dropout=0.1, unit_dropout=0.2),
            ),
        ),
    )
    return Planted(
        first=first,
        source=replace(source, digest="source"),
        new=replace(first, session_id="new", events=events),
        twin=np.argsort(place),
    )
