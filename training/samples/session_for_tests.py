"""A small session whose velocity is written in its spikes, for tests."""

import numpy as np

from cortex.events import Events
from cortex.session import Behavior, Session, Trials
from cortex.time_grid import TimeGrid

TRIAL_BINS, GAP_BINS, UNITS = 60, 24, 12


def make_session(n_trials: int = 12, seed: int = 0) -> Session:
    """Trials of 15 steps; half the units fire with each component's positive part."""
    rng = np.random.default_rng(seed)
    span = TRIAL_BINS + GAP_BINS
    velocity = np.zeros((n_trials * span, 2))
    for trial in range(n_trials):
        wave = np.sin(np.linspace(0, np.pi, TRIAL_BINS))[:, None]
        velocity[trial * span : trial * span + TRIAL_BINS] = wave * rng.uniform(-100, 100, 2)
    directions = rng.normal(size=(2, UNITS))
    counts = rng.poisson(0.1 + 0.6 * np.clip(velocity @ directions / 100, 0, None))
    start = np.arange(n_trials) * span
    labelled = (np.arange(len(velocity)) % span) < TRIAL_BINS
    return Session(
        session_id="waves",
        subject="nobody",
        unit_ids=tuple(f"u{i}" for i in range(UNITS)),
        grid=TimeGrid(window_steps=8),
        events=Events.from_counts(counts),
        behavior=Behavior(
            time_bin=np.flatnonzero(labelled),
            velocity=velocity[labelled].astype(np.float32),
            unit="mm/s",
        ),
        trials=Trials(start_bin=start, stop_bin=start + TRIAL_BINS),
    )
