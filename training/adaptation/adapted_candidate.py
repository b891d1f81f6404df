"""An adaptation as a fit of a comparison."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cortex.session import FloatArray, Session
from training.adaptation.adapt_decoder import decoder_adaptation
from training.adaptation.adaptation_config import AdaptationConfig
from training.adaptation.source import open_source
from training.comparison.candidate import Trained
from training.evaluation.offline_decoding import decode_trials
from training.fitting.train_decoder import TrainingSession
from training.fitting.turns import Work


@dataclass(frozen=True, kw_only=True)
class AdaptedCandidate:
    """What to adapt and how.

    Attributes:
        config: how.
        model: checkpoint directory to start from.
        recordings: that the model was trained on, whose units new ones are likened to.
        kind: "adapted".
    """

    config: AdaptationConfig
    model: Path
    recordings: tuple[Path, ...] = ()
    kind: str = "adapted"

    def settings(self) -> dict[str, Any]:
        """The configuration, and the digests of the source's weights and recordings."""
        source = open_source(self.model, self.recordings)
        return {
            **asdict(self.config),
            "source": source.checkpoint.digest,
            "recordings": list(source.digests),
        }

    def training(
        self, sessions: Sequence[TrainingSession], device: str, card: dict[str, object]
    ) -> Work[Trained]:
        """Adapts to the one session given, pausing after every step."""
        (target,) = sessions
        source = open_source(self.model, self.recordings)
        checkpoint = yield from decoder_adaptation(
            source.checkpoint, target, self.config, alike=source.alike, device=device, card=card
        )

        def decode(session: Session, trials: Sequence[int]) -> list[FloatArray]:
            return decode_trials(checkpoint, session, trials, device)

        parameters = sum(p.numel() for p in checkpoint.model.parameters())
        return Trained(decode=decode, parameters=parameters, checkpoint=checkpoint)
