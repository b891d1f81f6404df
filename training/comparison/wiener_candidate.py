"""The Wiener filter in a comparison."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from training.comparison.candidate import Trained
from training.comparison.search_space import SearchSpace
from training.fitting.train_decoder import TrainingSession
from training.fitting.turns import Work
from training.rivals.wiener import WienerConfig, WienerFilter


@dataclass(frozen=True, kw_only=True)
class WienerCandidate:
    """A history; the penalty is chosen on a part of the trials that it learns from."""

    kind: str = "wiener"
    config: WienerConfig = field(default_factory=WienerConfig)

    def settings(self) -> dict[str, Any]:
        """The configuration."""
        return asdict(self.config)

    def training(
        self, sessions: Sequence[TrainingSession], device: str, card: dict[str, object]
    ) -> Work[Trained]:
        """Solves for the weights, on the CPU and without a pause."""
        yield from ()
        (only,) = sessions
        wiener = WienerFilter(self.config).fit(only.session, only.trials)
        return Trained(decode=wiener.predict, parameters=wiener.weight.size + wiener.intercept.size)


def wiener_space() -> SearchSpace[WienerCandidate]:
    """Histories; every one is tried with every penalty."""
    histories = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
    return SearchSpace(base=WienerCandidate(), choices={"config.history_s": histories})
