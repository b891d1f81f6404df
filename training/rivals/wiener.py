"""The Wiener filter: ridge regression of velocity on past counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from cortex.errors import InputError
from cortex.session import FloatArray, Session
from training.evaluation.metrics import velocity_r2
from training.samples.splits import split_trials
from training.samples.targets import trial_targets

# Inputs are gathered in pieces of about so many points: those of a long recording fill no memory.
POINTS_AT_ONCE = 4096

_Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class WienerConfig:
    """What the filter sees and how its penalty is chosen.

    Attributes:
        history_s: seconds of counts, the present step included.
        alphas: ridge penalties to choose from, on trials held out of the training trials.
    """

    history_s: float = 0.4
    alphas: tuple[float, ...] = tuple(np.logspace(0, 4, 9).tolist())


class WienerFilter:
    """Causal: a step's velocity from the square roots of the last steps' counts.

    History never crosses the start of a trial: before it, counts are zero.

    Attributes:
        alpha: the penalty that was chosen.
        weight: (lags x units, 2).
        intercept: (2,).
    """

    def __init__(self, config: WienerConfig) -> None:
        """An unfitted filter."""
        self.config = config
        self.alpha = 0.0
        self.weight: _Array = np.zeros((0, 2))
        self.intercept: _Array = np.zeros(2)

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
        learn, look = split_trials(len(trials), 0) if len(trials) > 1 else ([0], [])
        sums = _RidgeSums(self._lags(session) * len(session.unit_ids))
        for x, y in self._points(session, [trials[i] for i in learn]):
            sums.add(x, y)
        alphas = self.config.alphas
        solved = [sums.solve(alpha) for alpha in alphas] if sums.points > 1 else []
        true: list[FloatArray] = []
        decoded: list[list[_Array]] = [[] for _ in solved]
        for x, y in self._points(session, [trials[i] for i in look]):
            sums.add(x, y)
            true.append(y)
            for answers, (weight, intercept) in zip(decoded, solved, strict=True):
                answers.append(x @ weight + intercept)
        self.alpha = alphas[len(alphas) // 2]
        if solved and sum(map(len, true)) > 1:
            y = np.concatenate(true)
            scores = [velocity_r2(y, np.concatenate(answers)) for answers in decoded]
            self.alpha = alphas[int(np.argmax(scores))]
        self.weight, self.intercept = sums.solve(self.alpha)
        return self

    def predict(self, session: Session, trials: Sequence[int]) -> list[FloatArray]:
        """Velocity (n, 2) at each trial's target steps."""
        return [
            (self._features(session, trial) @ self.weight + self.intercept).astype(np.float32)
            for trial in trials
        ]

    def _lags(self, session: Session) -> int:
        return max(round(self.config.history_s / session.grid.step_s), 1)

    def _points(
        self, session: Session, trials: Sequence[int]
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Inputs and velocities of all target steps, some trials at a time."""
        xs: list[FloatArray] = []
        ys: list[FloatArray] = []
        for trial in trials:
            xs.append(self._features(session, trial))
            ys.append(trial_targets(session, trial)[1])
            if sum(map(len, ys)) >= POINTS_AT_ONCE:
                yield np.concatenate(xs), np.concatenate(ys)
                xs, ys = [], []
        if xs:
            yield np.concatenate(xs), np.concatenate(ys)

    def _features(self, session: Session, trial: int) -> FloatArray:
        """(n, lags x units) inputs at a trial's target steps."""
        bins, n_units = session.grid.bins_per_step, len(session.unit_ids)
        start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
        n_steps = -(-(stop - start) // bins)
        counts = session.events.between(start, stop).to_counts(n_steps * bins, n_units, start)
        rates = np.sqrt(counts.reshape(n_steps, bins, n_units).sum(1)).astype(np.float32)
        lags = self._lags(session)
        padded = np.concatenate([np.zeros((lags - 1, n_units), np.float32), rates])
        history = np.lib.stride_tricks.sliding_window_view(padded, lags, axis=0)
        steps, _ = trial_targets(session, trial)
        return history[steps].reshape(len(steps), lags * n_units)


class _RidgeSums:
    """All that ridge regressions on the same points need of them, whatever their penalties.

    Attributes:
        points: how many have been added.
    """

    def __init__(self, n_inputs: int) -> None:
        self.points = 0
        self._sum = np.zeros(n_inputs + 2)
        self._gram = np.zeros((n_inputs, n_inputs))
        self._cross = np.zeros((n_inputs, 2))

    def add(self, x: FloatArray, y: FloatArray) -> None:
        """Adds points: inputs (n, inputs) and outputs (n, 2)."""
        wide = x.astype(np.float64)
        self.points += len(x)
        self._sum += np.concatenate([wide.sum(0), y.sum(0, dtype=np.float64)])
        self._gram += wide.T @ wide
        self._cross += wide.T @ y

    def solve(self, alpha: float) -> tuple[_Array, _Array]:
        """Weight (inputs, 2) and unpenalised intercept (2,)."""
        mean = self._sum / self.points
        x, y = mean[:-2], mean[-2:]
        gram = self._gram - self.points * np.outer(x, x)
        gram.flat[:: len(x) + 1] += alpha
        cross = self._cross - self.points * np.outer(x, y)
        weight = scipy.linalg.solve(gram, cross, assume_a="pos", overwrite_a=True)
        return weight, y - x @ weight
