"""The distribution that simulated reaches come from, as a standard normal one.

A reach of `cortex.data.reaches.random_reach` is a function of ten uniform numbers, whole
milliseconds being the floor of a uniform one. A uniform number is the normal distribution function
of a normal one, and an angle is that of two normal ones. So a reach is a function of a point whose
coordinates are independent standard normals, without edges or an angle that wraps. The rest after
the reach moves nothing and is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortex.data.reaches import MS

# Lower and upper end of each uniform number, in the order of `reaches_at`.
RANGES = (
    (200.0, 500.0),  # target_on, ms
    (300.0, 800.0),  # delay, ms
    (200.0, 350.0),  # reaction, ms
    (300.0, 480.0),  # first stroke, ms
    (300.0, 480.0),  # second stroke, ms
    (0.35, 0.6),  # overlap, a share of the first stroke
    (90.0, 150.0),  # distance, mm
    (0.3, 0.7),  # via point along the way to the target
    (-0.6, 0.6),  # via point to the side of it
)
DIMENSIONS = len(RANGES) + 2
"""The uniform numbers, then the two normal ones that point towards the target."""


@dataclass(frozen=True, kw_only=True)
class Reaches:
    """Reaches, one a particle. Times are whole milliseconds, held as floating point.

    Attributes:
        target_on: (N,) ms from the trial's start.
        onset: (N,) ms at which the first stroke begins.
        first: (N,) ms that it lasts.
        second_on: (N,) ms at which the second stroke begins.
        second: (N,) ms that it lasts.
        heading: (2, N) unit vector towards the target.
        first_step: (2, N) mm that the first stroke covers.
        second_step: (2, N) mm that the second one covers.
    """

    target_on: Tensor
    onset: Tensor
    first: Tensor
    second_on: Tensor
    second: Tensor
    heading: Tensor
    first_step: Tensor
    second_step: Tensor

    def velocity(self, at_ms: Tensor) -> Tensor:
        """Velocity (2, ..., N) in mm/s at times (..., N) or (..., 1)."""
        first = _minimum_jerk(at_ms - self.onset, self.first)
        second = _minimum_jerk(at_ms - self.second_on, self.second)
        return torch.stack(
            [first * self.first_step[i] + second * self.second_step[i] for i in (0, 1)]
        )


def reaches_at(points: Tensor) -> Reaches:
    """The reaches at points (N, DIMENSIONS), standard normal under the prior."""
    low, high = torch.tensor(RANGES, dtype=points.dtype, device=points.device).T
    # Rounded to 1, a uniform number would be a millisecond outside its range.
    uniform = torch.special.ndtr(points[:, : len(RANGES)]).clamp(max=1 - 1e-6)
    values = low + uniform * (high - low)
    target_on, delay, reaction, first, second = values[:, :5].floor().T
    overlap, distance, along, side = values[:, 5:].T
    onset = target_on + delay + reaction
    heading = torch.nn.functional.normalize(points[:, len(RANGES) :]).T
    target = distance * heading
    via = along * target + side * torch.stack([-target[1], target[0]])
    return Reaches(
        target_on=target_on,
        onset=onset,
        first=first,
        second_on=onset + first - (first * overlap).floor(),
        second=second,
        heading=heading,
        first_step=via,
        second_step=target - via,
    )


def _minimum_jerk(since_ms: Tensor, length_ms: Tensor) -> Tensor:
    """Velocity per unit of distance (1/s); zero before the stroke and after it."""
    phase = ((since_ms + 0.5) / length_ms).clamp(0, 1)
    return 30 * (phase * (1 - phase)) ** 2 / (length_ms * MS)
