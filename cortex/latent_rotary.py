"""How latents and readout queries turn with time.

Scores depend on differences of time alone, so that a session is counted from its own start, at
zero, and its S steps follow; streams, whose keys stay, count bins for ever.
"""

import torch
from torch import Tensor, nn

from cortex.model_config import ModelConfig
from kernels.rotary import rotary_periods, rotary_phases
from kernels.turn import Turn

MIN_PERIOD = 4.0


class LatentRotary(nn.Module):
    """Rotary phases; those of a window's steps are kept."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        cos_SK, sin_SK = self._steps(config.grid.window_steps, torch.get_default_device())
        self.register_buffer("cos_SK", cos_SK, persistent=False)
        self.register_buffer("sin_SK", sin_SK, persistent=False)

    def at(self, time_bin: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (..., K / 2), in float32, at integer bins (...)."""
        config = self.config
        return rotary_phases(
            time_bin,
            config.dim // config.heads,
            min_period=MIN_PERIOD,
            max_period=MIN_PERIOD * config.grid.window_bins,
        )

    def steps(self, n_steps: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (S, K / 2) of the first S steps of a session."""
        cos_SK: Tensor = self.cos_SK  # type: ignore[assignment]
        sin_SK: Tensor = self.sin_SK  # type: ignore[assignment]
        if n_steps <= len(cos_SK):
            return cos_SK[:n_steps], sin_SK[:n_steps]
        return self._steps(n_steps, cos_SK.device)

    def turn(self, n_steps: int, columns: int, last: int | None = None) -> Turn:
        """How the leading columns of S steps' latents turn, or of the `last` of these steps."""
        cos, sin = (phase[-last:] if last else phase for phase in self.steps(n_steps))
        return Turn(cos, sin, rows=self.config.latents_per_step, columns=columns)

    def periods(self, device: torch.device) -> Tensor:
        """(K / 2,) float64 periods in bins."""
        config = self.config
        return rotary_periods(
            config.dim // config.heads,
            min_period=MIN_PERIOD,
            max_period=MIN_PERIOD * config.grid.window_bins,
            device=device,
        )

    def _steps(self, n_steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
        step_S = torch.arange(1, n_steps + 1, device=device)
        return self.at(step_S * self.config.grid.bins_per_step)
