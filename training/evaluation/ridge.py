"""Ridge regression with its penalty chosen by cross-validation over trials."""

from collections.abc import Sequence

from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from cortex.errors import InputError
from cortex.events import IntArray
from cortex.session import FloatArray

FOLDS = 5


def fit_ridge(
    inputs: FloatArray, velocity: FloatArray, trial: IntArray, alphas: Sequence[float]
) -> Ridge:
    """Fits to all points, with the alpha whose R2 over folds of whole trials is best.

    Args:
        inputs: (n, features).
        velocity: (n, 2).
        trial: (n,) the trial of each point; folds keep a trial's points together.
        alphas: penalties to choose from.

    Raises:
        InputError: fewer than four trials: each of two folds needs two, for an R2.
    """
    n_trials = len(set(trial.tolist()))
    if n_trials < 4:
        raise InputError(f"{n_trials} training trials to fit a ridge to, expected at least 4")
    search = GridSearchCV(
        Ridge(), {"alpha": list(alphas)}, cv=GroupKFold(min(FOLDS, n_trials // 2))
    )
    best: Ridge = search.fit(inputs, velocity, groups=trial).best_estimator_
    return best
