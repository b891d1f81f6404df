"""What is done to a trial each time that training sees it."""

from dataclasses import dataclass

import numpy as np

from cortex.events import Events
from training.trial_samples import TrialSample


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How strongly trials are varied.

    Small recordings overfit without it; heavy event and unit dropout is what helps most.

    Attributes:
        crop_steps: longest piece of a trial that is seen at once. A piece begins empty as a trial
            does, so pieces much shorter than trials teach the model when trials begin, wrongly.
        event_dropout: probability of losing each event.
        unit_dropout: each time, a share of the units drawn from [0, unit_dropout) falls silent.
    """

    crop_steps: int = 160
    event_dropout: float = 0.3
    unit_dropout: float = 0.5


def augment(
    sample: TrialSample, config: AugmentationConfig, n_units: int, rng: np.random.Generator
) -> TrialSample:
    """A random piece of a trial with random units and events missing."""
    n_steps = min(sample.n_steps, config.crop_steps)
    piece = sample.crop(int(rng.integers(sample.n_steps - n_steps + 1)), n_steps)
    silent = rng.random(n_units) < rng.random() * config.unit_dropout
    events = piece.events
    keep = ~silent[events.unit] & (rng.random(len(events)) >= config.event_dropout)
    kept = Events(unit=events.unit[keep], time_bin=events.time_bin[keep], value=events.value[keep])
    return TrialSample(events=kept, velocity=piece.velocity, labelled=piece.labelled)
