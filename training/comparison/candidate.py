"""What takes part in a comparison: one configuration of one kind of decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cortex.checkpoint import Checkpoint
from training.evaluation.decoders import DecodeTrials
from training.fitting.train_decoder import TrainingSession
from training.fitting.turns import Work


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A decoder that learnt from some trials.

    Attributes:
        decode: what it decodes of trials.
        parameters: numbers that were learnt.
        checkpoint: what runs it elsewhere, for kinds that have that.
    """

    decode: DecodeTrials
    parameters: int
    checkpoint: Checkpoint | None = None


class Candidate(Protocol):
    """One configuration: all that is chosen before anything is learnt."""

    @property
    def kind(self) -> str:
        """The kind of decoder, such as "gru"."""

    def settings(self) -> dict[str, Any]:
        """All that fixes what is learnt from given trials, as JSON."""

    def training(
        self, sessions: Sequence[TrainingSession], device: str, card: dict[str, object]
    ) -> Work[Trained]:
        """Learns from some trials, with pauses.

        Args:
            sessions: what may be learnt from; kinds that take one session are given one.
            device: where.
            card: more for the model card, for kinds that have one.
        """
