"""Decoders as a share of the best that a simulated recording allows."""

from dataclasses import dataclass

import numpy as np

from cortex.errors import InputError
from training.evaluation.metrics import velocity_r2
from training.evaluation.per_bin import PerBin
from training.oracle.ceiling import Ceiling


@dataclass(frozen=True, kw_only=True)
class OracleShares:
    """Causal decoders beside the causal oracle, on the oracle's own trials.

    Attributes:
        r2_oracle: of the oracle that has each trial's spikes until the moment decoded.
        trials: the oracle's trials.
        r2: of each decoder on these trials, by key.
        share: each one's R2 over the oracle's.
    """

    r2_oracle: float
    trials: int
    r2: dict[str, float]
    share: dict[str, float]


def oracle_shares(ceiling: Ceiling, decoded: PerBin) -> OracleShares:
    """Scores the decoders again, on the oracle's trials alone.

    Args:
        ceiling: the oracle's score on this session.
        decoded: velocities of all held-out trials.

    Raises:
        InputError: the oracle was scored on a trial that is not held out.
    """
    place = {trial: i for i, trial in enumerate(decoded.trials)}
    other = [trial for trial in ceiling.trials if trial not in place]
    if other or not ceiling.trials:
        raise InputError(
            f"the ceiling of {ceiling.session_id!r} was scored on {len(ceiling.trials)} trials, "
            f"{len(other)} of them not held out from the model; expected held-out trials only, "
            "as the oracle scores with the model's --split_seed"
        )
    rows = [place[trial] for trial in ceiling.trials]
    true = np.concatenate([decoded.true[i] for i in rows])
    r2 = {
        key: velocity_r2(true, np.concatenate([velocity[i] for i in rows]))
        for key, velocity in (("cortex", decoded.streamed), ("wiener", decoded.wiener))
    }
    return OracleShares(
        r2_oracle=ceiling.r2_causal,
        trials=len(rows),
        r2=r2,
        share={key: value / ceiling.r2_causal for key, value in r2.items()},
    )
