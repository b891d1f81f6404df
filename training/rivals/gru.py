"""A recurrent decoder on binned counts, the field's usual strong baseline.

Source: Cho et al. 2014, arXiv:1406.1078; on motor cortex, Glaser et al. 2020,
doi:10.1523/ENEURO.0506-19.2020.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.time_grid import TimeGrid
from training.rivals.step_counts import root_counts


@dataclass(frozen=True, kw_only=True)
class GruConfig:
    """The network's shape.

    Attributes:
        n_units: size of the unit vocabulary.
        grid: the time grid.
        width: of the hidden state.
        layers: of recurrence.
        dropout: of inputs, between layers, and before the readout.
    """

    n_units: int
    grid: TimeGrid
    width: int = 128
    layers: int = 2
    dropout: float = 0.3


class Gru(DecoderModule):
    """Root counts of each step, through the recurrence, to the velocities of the step's bins."""

    def __init__(self, config: GruConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        # One module a layer: dropout inside of cuDNN's recurrence cannot be captured in a graph.
        self.layers = nn.ModuleList(
            nn.GRU(config.width if layer else config.n_units, config.width, batch_first=True)
            for layer in range(config.layers)
        )
        self.velocity = nn.Linear(config.width, 2 * config.grid.bins_per_step)

    @property
    def shape(self) -> GruConfig:
        """Units and time grid: the configuration."""
        return self.config

    def forward(self, batch: EventBatch, query_phase_Q: Tensor) -> Tensor:
        """Velocity (B, S, Q, 2), in the labels' unit, at Q bins of every step."""
        x = root_counts(batch, self.config.n_units)
        for layer in self.layers:
            x, _ = layer(self.dropout(x))
        outputs = self.velocity(self.dropout(x)).unflatten(-1, (-1, 2))
        return self.denormalise(outputs[:, :, query_phase_Q])
