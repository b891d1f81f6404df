"""Simulated reaches through a maze: hand paths at 1 kHz."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Reach:
    """One trial's kinematics and events.

    Attributes:
        position: (T, 2) mm, a sample a millisecond.
        velocity: (T, 2) mm/s.
        target: (2,) mm, where the reach ends.
        target_on_ms: when the target appears.
        go_cue_ms: when the monkey is told to reach.
        move_onset_ms: when the hand begins to move.
    """

    position: FloatArray
    velocity: FloatArray
    target: FloatArray
    target_on_ms: int
    go_cue_ms: int
    move_onset_ms: int


def random_reach(rng: np.random.Generator) -> Reach:
    """A hold, a delay, and a reach around a barrier: two overlapping minimum-jerk strokes.

    Speeds and extents are those of MC_Maze: some 130 mm at a peak of some 600 mm/s.
    """
    target_on, delay, reaction, rest = rng.integers((200, 300, 200, 350), (500, 800, 350, 600))
    onset = target_on + delay + reaction
    first_ms, second_ms = rng.integers((300, 300), (480, 480))
    overlap = int(first_ms * rng.uniform(0.35, 0.6))
    direction = rng.uniform(0, 2 * np.pi)
    target = rng.uniform(90, 150) * np.array([np.cos(direction), np.sin(direction)])
    sideways = np.array([-target[1], target[0]])
    via = target * rng.uniform(0.3, 0.7) + sideways * rng.uniform(-0.6, 0.6)
    second_on = onset + first_ms - overlap
    n_ms = int(second_on + second_ms + rest)
    velocity = np.zeros((n_ms, 2))
    for on, length, step in ((onset, first_ms, via), (second_on, second_ms, target - via)):
        velocity[on : on + length] += _minimum_jerk(length)[:, None] * step
    return Reach(
        position=np.cumsum(velocity, 0) * MS,
        velocity=velocity,
        target=target,
        target_on_ms=int(target_on),
        go_cue_ms=int(target_on + delay),
        move_onset_ms=int(onset),
    )


def _minimum_jerk(length_ms: int) -> FloatArray:
    """Velocity per unit of distance (1/s) of a minimum-jerk stroke (Flash and Hogan 1985)."""
    phase = (np.arange(length_ms) + 0.5) / length_ms
    return 30 * (phase * (1 - phase)) ** 2 / (length_ms * MS)
