"""The Wiener filter: ridge regression of velocity on past counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from cortex.errors import InputError
from cortex.session import FloatArray, Session
from training.evaluation.metrics import velocity_r2
from training.samples.splits import split_trials
from training.samples.targets import trial_targets


@dataclass(frozen=True, kw_only=True)
class WienerConfig:
    """What the filter sees and how its penalty is chosen.

    Attributes:
        history_s: seconds of counts, the present step included.
        alphas: ridge penalties to choose from, on trials held out of the training trials.
    """

    history_s: float = 0.4
    alphas: tuple[float, ...] = tuple(np.logspace(0, 4, 9))


class WienerFilter:
    """Causal: a step's velocity from the square roots of the last steps' counts.

    History never crosses the start of a trial: before it, counts are zero.
    """

    def __init__(self, config: WienerConfig) -> None:
        """An unfitted filter."""
        self.config = config
        self._ridge = Ridge()

    def fit(self, session: Session, trials: Sequence[int]) -> "WienerFilter":
        """Fits to the trials given; alpha is chosen on a part of them, by trial.

        Raises:
            InputError: the trials hold no labelled step.
        """
        if not any(len(trial_targets(session, trial)[0]) for trial in trials):
            raise InputError(
                f"session {session.session_id!r}: the {len(trials)} training trials hold no "
                "labelled step, expected at least one"
            )
        self._ridge = Ridge(self._best_alpha(session, trials))
        self._ridge.fit(*self._points(session, trials))
        return self

    def predict(self, session: Session, trials: Sequence[int]) -> list[FloatArray]:
        """Velocity (n, 2) at each trial's target steps."""
        return [
            self._ridge.predict(x).astype(np.float32)
            if len(x := self._features(session, trial))
            else np.empty((0, 2), np.float32)
            for trial in trials
        ]

    def _best_alpha(self, session: Session, trials: Sequence[int]) -> float:
        alphas = self.config.alphas
        if len(trials) < 2:
            return alphas[len(alphas) // 2]
        inner, held_out = ([trials[i] for i in part] for part in split_trials(len(trials), 0))
        x, y = self._points(session, inner)
        x_held_out, y_held_out = self._points(session, held_out)
        if len(y) < 2 or len(y_held_out) < 2:
            return alphas[len(alphas) // 2]
        scores = [
            velocity_r2(y_held_out, Ridge(alpha).fit(x, y).predict(x_held_out)) for alpha in alphas
        ]
        return alphas[int(np.argmax(scores))]

    def _points(self, session: Session, trials: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        x = np.concatenate([self._features(session, trial) for trial in trials])
        return x, np.concatenate([trial_targets(session, trial)[1] for trial in trials])

    def _features(self, session: Session, trial: int) -> FloatArray:
        """(n, lags x units) inputs at a trial's target steps."""
        bins, n_units = session.grid.bins_per_step, len(session.unit_ids)
        start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
        n_steps = -(-(stop - start) // bins)
        counts = session.events.between(start, stop).to_counts(n_steps * bins, n_units, start)
        rates = np.sqrt(counts.reshape(n_steps, bins, n_units).sum(1)).astype(np.float32)
        lags = max(round(self.config.history_s / session.grid.step_s), 1)
        padded = np.concatenate([np.zeros((lags - 1, n_units), np.float32), rates])
        history = np.lib.stride_tricks.sliding_window_view(padded, lags, axis=0)
        steps, _ = trial_targets(session, trial)
        return history[steps].reshape(len(steps), lags * n_units)
