"""A network on binned counts in a comparison, trained as Cortex is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from cortex.decoder_module import DecoderModule
from cortex.session import FloatArray, Session
from cortex.time_grid import TimeGrid
from training.comparison.candidate import Trained
from training.evaluation.sample_decoding import decode_samples
from training.fitting.fit import fitting
from training.fitting.fit_config import FitConfig
from training.fitting.train_decoder import TrainingSession
from training.fitting.turns import Work
from training.rivals.gru import Gru, GruConfig
from training.rivals.transformer import Transformer, TransformerConfig
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors


@dataclass(frozen=True, kw_only=True)
class NetworkCandidate:
    """A network's shape and how it is fitted.

    Attributes:
        kind: which network.
        shape: fields of its configuration besides units and grid.
        fit: the optimisation; what it says of masked spikes is Cortex's alone.
    """

    kind: Literal["gru", "transformer"]
    shape: dict[str, Any]
    fit: FitConfig

    def settings(self) -> dict[str, Any]:
        """Shape and optimisation."""
        return {"shape": self.shape, "fit": asdict(self.fit)}

    def network(self, n_units: int, grid: TimeGrid) -> DecoderModule:
        """A fresh network for a session's units and grid."""
        if self.kind == "gru":
            return Gru(GruConfig(n_units=n_units, grid=grid, **self.shape))
        return Transformer(TransformerConfig(n_units=n_units, grid=grid, **self.shape))

    def training(
        self, sessions: Sequence[TrainingSession], device: str, card: dict[str, object]
    ) -> Work[Trained]:
        """Fits the network, pausing after every step."""
        (only,) = sessions
        session = only.session
        torch.manual_seed(self.fit.seed)
        network = self.network(len(session.unit_ids), session.grid).to(device)
        trials = TrialTensors(
            trial_samples(session, only.trials),
            bins_per_step=session.grid.bins_per_step,
            crop_steps=self.fit.augmentation.crop_steps,
            device=device,
        )
        fitted = yield from fitting(network, trials, self.fit)
        network.load_state_dict(fitted.weights)
        network.eval()

        def decode(session: Session, trials: Sequence[int]) -> list[FloatArray]:
            return decode_samples(network, trial_samples(session, trials), device)

        return Trained(decode=decode, parameters=sum(p.numel() for p in network.parameters()))
