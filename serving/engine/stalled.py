"""What to drive a device with while a stream's next step does not come."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cortex.errors import InputError


class Freshness(Enum):
    """How a velocity stands to the last answer."""

    FRESH = "fresh"
    HELD = "held"
    DECAYING = "decaying"
    STALE = "stale"


class Latest(NamedTuple):
    """A stream's velocity now.

    Attributes:
        velocity: (x, y), in the model's velocity unit.
        age_s: seconds since the step that it rests on was submitted; infinite before the first.
        state: how it stands to the last answer.
    """

    velocity: tuple[float, float]
    age_s: float
    state: Freshness


@dataclass(frozen=True, kw_only=True)
class StalledPolicy:
    """The last velocity is held, then falls linearly to zero, then is stale: zero.

    Attributes:
        hold_s: age in seconds up to which the last velocity is given as it was.
        decay_s: seconds that it then takes to fall to zero.
    """

    hold_s: float = 0.1
    decay_s: float = 0.2

    def __post_init__(self) -> None:
        """Raises InputError unless both are 0 or more seconds."""
        for name, value in (("hold_s", self.hold_s), ("decay_s", self.decay_s)):
            if not value >= 0:
                raise InputError(f"stalled policy: {name} is {value}, expected 0 or more seconds")

    def at(self, velocity: tuple[float, float], *, age_s: float, step_s: float) -> Latest:
        """The velocity at an age.

        Args:
            velocity: the last answer's.
            age_s: seconds since its step was submitted.
            step_s: seconds between steps. Up to two the velocity is fresh: the next step takes
                one to come, and up to one to be answered.
        """
        if age_s <= min(2 * step_s, self.hold_s):
            return Latest(velocity, age_s, Freshness.FRESH)
        if age_s <= self.hold_s:
            return Latest(velocity, age_s, Freshness.HELD)
        left = self.hold_s + self.decay_s - age_s
        if left <= 0:
            return Latest((0.0, 0.0), age_s, Freshness.STALE)
        x, y = velocity
        share = left / self.decay_s
        return Latest((x * share, y * share), age_s, Freshness.DECAYING)
