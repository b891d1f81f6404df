"""Scores a decoder and the Wiener filter on the same points of the same trials."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.checkpoint import Checkpoint
from cortex.session import FloatArray, Session
from training.evaluation.metrics import require_points, velocity_r2
from training.evaluation.offline_decoding import decode_trials
from training.rivals.wiener import WienerConfig, WienerFilter
from training.samples.targets import trial_targets


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Velocity R2 on held-out trials, the mean of x and y.

    Attributes:
        r2: the decoder's.
        r2_wiener: of a ridge regression on past counts, fitted to the decoder's training trials.
        points: labelled steps scored.
    """

    r2: float
    r2_wiener: float
    points: int


def true_velocity(session: Session, trials: Sequence[int]) -> list[FloatArray]:
    """Recorded velocity (n, 2) at each trial's target steps."""
    return [trial_targets(session, trial)[1] for trial in trials]


def score(
    checkpoint: Checkpoint, session: Session, train: Sequence[int], test: Sequence[int]
) -> Scores:
    """Scores on the test trials.

    Raises:
        InputError: the session does not fit the model, or the test trials hold fewer than two
            labels.
    """
    true = np.concatenate(true_velocity(session, test))
    require_points(session.session_id, len(test), len(true))
    wiener = WienerFilter(WienerConfig()).fit(session, train)
    return Scores(
        r2=velocity_r2(true, np.concatenate(decode_trials(checkpoint, session, test))),
        r2_wiener=velocity_r2(true, np.concatenate(wiener.predict(session, test))),
        points=len(true),
    )
