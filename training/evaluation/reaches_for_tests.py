"""A session with an onset of movement in every trial, for tests of the protocols."""

import numpy as np

from cortex.events import Events
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid

TRIAL_BINS, GAP_BINS, UNITS = 240, 30, 10


def make_reaches(n_trials: int = 20, seed: int = 0) -> Session:
    """Trials of 1.2 s in bins of 5 ms with one reach each, in motion at the onset by then.

    The first trial begins at bin 7. Onsets are bins 70 to 95 of their trials.
    """
    rng = np.random.default_rng(seed)
    span = TRIAL_BINS + GAP_BINS
    start = 7 + np.arange(n_trials) * span
    onset = start + rng.integers(70, 96, n_trials)
    velocity = np.zeros((int(start[-1]) + span, 2))
    for at in onset.tolist():
        wave = np.sin(np.linspace(0, np.pi, 140))[:, None]
        velocity[at - 20 : at + 120] = wave * rng.uniform(-100, 100, 2)
    directions = rng.normal(size=(2, UNITS))
    counts = rng.poisson(0.05 + 0.4 * np.clip(velocity @ directions / 100, 0, None))
    return Session(
        session_id="reaches",
        subject="nobody",
        unit_ids=tuple(f"u{i}" for i in range(UNITS)),
        grid=TimeGrid(window_steps=8),
        events=Events.from_counts(counts),
        behavior=Behavior(
            time_bin=np.arange(len(velocity)), velocity=velocity.astype(np.float32), unit="mm/s"
        ),
        trials=Trials(
            start_bin=start, stop_bin=start + TRIAL_BINS, event_bins={"move_onset": onset}
        ),
    )
