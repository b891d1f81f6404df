"""The per-bin protocol: every labelled step of the held-out trials, causal.

A point is the velocity in a step's last bin. What decodes it has the trial's spikes up to the end
of that bin and none from before the trial.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.session import FloatArray, Session
from training.evaluation.decoders import Decoders
from training.evaluation.figures import ProtocolResult, make_difference, make_figure
from training.evaluation.metrics import require_points
from training.evaluation.scoring import true_velocity

NAME = "per_bin"


@dataclass(frozen=True, kw_only=True)
class PerBin:
    """Velocities (n, 2) at each trial's labelled steps.

    Attributes:
        trials: the trials.
        true: recorded.
        streamed: decoded by Cortex one step at a time.
        offline: decoded by Cortex a whole trial at once.
        wiener: decoded by the Wiener filter.
    """

    trials: tuple[int, ...]
    true: list[FloatArray]
    streamed: list[FloatArray]
    offline: list[FloatArray]
    wiener: list[FloatArray]

    @property
    def streaming_error(self) -> float:
        """Largest difference between streamed and offline, over the largest velocity."""
        streamed, offline = np.concatenate(self.streamed), np.concatenate(self.offline)
        return float(np.abs(streamed - offline).max() / np.abs(offline).max())


def decode_per_bin(session: Session, trials: Sequence[int], decoders: Decoders) -> PerBin:
    """Decodes the trials with each decoder.

    Raises:
        InputError: the session does not fit the model, or the trials hold fewer than two labels.
    """
    true = true_velocity(session, trials)
    require_points(session.session_id, len(trials), sum(map(len, true)))
    return PerBin(
        trials=tuple(trials),
        true=true,
        streamed=decoders.streamed(session, trials),
        offline=decoders.offline(session, trials),
        wiener=decoders.wiener(session, trials),
    )


def score_per_bin(decoded: PerBin, name: str) -> ProtocolResult:
    """The protocol's figures.

    Args:
        decoded: the velocities.
        name: Cortex's name for readers.
    """
    true = decoded.true
    streamed = make_figure("cortex", f"{name}, streamed", true, decoded.streamed)
    offline = make_figure("cortex_offline", f"{name}, offline", true, decoded.offline)
    wiener = make_figure("wiener", "Wiener filter", true, decoded.wiener)
    return ProtocolResult(
        protocol=NAME,
        figures=(streamed, offline, wiener),
        differences=(make_difference(streamed, wiener, true, decoded.streamed, decoded.wiener),),
        left_out_trials=len(decoded.trials) - streamed.trials,
    )
