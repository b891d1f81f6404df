"""Cortex in a comparison."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cortex.checkpoint import Checkpoint, load_checkpoint
from cortex.session import FloatArray, Session
from training.comparison.candidate import Trained
from training.evaluation.offline_decoding import decode_trials
from training.fitting.processes import Processes
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, decoder_training
from training.fitting.turns import Work

# One read of a checkpoint a process, however many fits start from it.
_load = cache(load_checkpoint)


@dataclass(frozen=True, kw_only=True)
class CortexCandidate:
    """What to train and how, and where from.

    Attributes:
        config: the decoder's making.
        init_from: checkpoint directory to start from.
        kind: "cortex".
    """

    config: TrainConfig
    init_from: Path | None = None
    kind: str = "cortex"

    def settings(self) -> dict[str, Any]:
        """The configuration, and the digest of the weights that it starts from."""
        start = {"init_from": _load(self.init_from).digest} if self.init_from else {}
        return {**asdict(self.config), **start}

    def training(
        self, sessions: Sequence[TrainingSession], device: str, card: dict[str, object]
    ) -> Work[Trained]:
        """Trains one model on all the sessions, pausing after every step."""
        checkpoint = yield from decoder_training(
            sessions,
            self.config,
            processes=Processes(device=torch.device(device)),
            init_from=_load(self.init_from) if self.init_from else None,
            card=card,
        )

        def decode(session: Session, trials: Sequence[int]) -> list[FloatArray]:
            return decode_trials(checkpoint, on_its_grid(session, checkpoint), trials, device)

        parameters = sum(p.numel() for p in checkpoint.model.parameters())
        return Trained(decode=decode, parameters=parameters, checkpoint=checkpoint)


def on_its_grid(session: Session, checkpoint: Checkpoint) -> Session:
    """The session with its steps counted as the model's.

    A model of several sessions with as many bins a step each has the first one's grid. It knows
    steps and not seconds, so the others' steps stand for its own.
    """
    return replace(session, grid=checkpoint.model.config.grid)
