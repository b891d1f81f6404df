"""Decoders whose answers are known, for tests of the protocols."""

from collections.abc import Sequence

import numpy as np

from cortex.session import FloatArray, Session
from training.evaluation.decoders import Decoders, DecodeTrials
from training.samples.targets import trial_targets


def recalled(recording: Session, off: float = 0.0) -> DecodeTrials:
    """A decoder that answers with the recorded velocity at its own steps, `off` by so much."""

    def decode(session: Session, trials: Sequence[int]) -> list[FloatArray]:
        last = session.grid.bins_per_step - 1
        width = session.grid.bins_per_step
        return [
            recording.behavior.at(
                session.trials.start_bin[t] + trial_targets(session, t)[0] * width + last
            )[0]
            + np.float32(off)
            for t in trials
        ]

    return decode


def known_decoders(recording: Session) -> Decoders:
    """Cortex knows the velocity; the Wiener filter is 20 off."""
    return Decoders(
        name="Cortex known",
        streamed=recalled(recording),
        offline=recalled(recording, 0.5),
        wiener=recalled(recording, 20.0),
    )
