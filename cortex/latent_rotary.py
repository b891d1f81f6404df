"""How latents and readout queries turn with time.

Scores depend on differences of time alone, so that a session may be counted from its own start;
streams, whose keys stay, count bins for ever.
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
        # The start comes before the window's first step.
        step_T = torch.arange(config.grid.window_steps + 1)
        cos_TK, sin_TK = self.at(step_T * config.grid.bins_per_step)
        self.register_buffer("cos_TK", cos_TK, persistent=False)
        self.register_buffer("sin_TK", sin_TK, persistent=False)

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
        """Cosine and sine (T, K / 2) of the first T steps of a session."""
        cos_TK: Tensor = self.cos_TK  # type: ignore[assignment]
        sin_TK: Tensor = self.sin_TK  # type: ignore[assignment]
        if n_steps <= len(cos_TK):
            return cos_TK[:n_steps], sin_TK[:n_steps]
        step_T = torch.arange(n_steps, device=cos_TK.device)
        return self.at(step_T * self.config.grid.bins_per_step)

    def turn(self, n_steps: int, columns: int, last: int | None = None) -> Turn:
        """How the leading columns of T steps' latents turn, or of the `last` of these steps."""
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
