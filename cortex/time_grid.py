"""The time grid: integer bins, grouped into steps, of which the model sees a window."""

from dataclasses import asdict, dataclass
from typing import Any

from cortex.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TimeGrid:
    """Integer time. A bin counts spikes, a step is one decode, a window is what attention spans.

    Bins are whole microseconds, so a bin index at any session time is exact.

    Attributes:
        bin_us: width of a bin in microseconds.
        bins_per_step: bins in one decoding step.
        window_steps: steps that self-attention looks back over, the present one included.
    """

    bin_us: int = 5_000
    bins_per_step: int = 4
    window_steps: int = 32

    def __post_init__(self) -> None:
        """Raises InputError unless every field is a positive integer."""
        for name, value in asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"time grid: {name} must be a positive integer, not {value!r}")

    @property
    def bin_s(self) -> float:
        """Width of a bin in seconds."""
        return self.bin_us / 1e6

    @property
    def step_s(self) -> float:
        """Width of a step in seconds."""
        return self.bin_us * self.bins_per_step / 1e6

    @property
    def window_bins(self) -> int:
        """Bins in a window."""
        return self.bins_per_step * self.window_steps

    def to_dict(self) -> dict[str, int]:
        """The fields, for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TimeGrid":
        """The inverse of to_dict. Raises InputError on a missing or unknown field."""
        try:
            return cls(**fields)
        except TypeError as error:
            raise InputError(f"time grid: {error}") from error
