"""Rotary phases of latents, shared by self-attention and readout."""

from torch import Tensor

from cortex.model_config import ModelConfig
from kernels.rotary import rotary_phases


def latent_phases(config: ModelConfig, time_bin: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (..., K / 2) for latents or readout queries at integer bins (...)."""
    return rotary_phases(
        time_bin,
        config.dim // config.heads,
        min_period=4.0,
        max_period=4.0 * config.grid.window_bins,
    )
