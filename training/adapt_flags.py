"""The flags that say how to adapt, shared by the binaries that do."""

import dataclasses
from pathlib import Path

from absl import flags

from cortex.session import Session
from training.adaptation.adaptation_config import AdaptationConfig, adaptation_recipe
from training.fitting.fit_config import FitConfig


def define() -> None:
    """Defines the flags. None means: what suits the recording and the number of trials."""
    flags.DEFINE_string("model", None, "checkpoint directory to start from", required=True)
    flags.DEFINE_multi_string(
        "source_session",
        [],
        "recording that the model was trained on: new units start as those of its units that are "
        "tuned alike; repeat it for more",
    )
    flags.DEFINE_string("session", None, "new recording: .nwb or binned .npz", required=True)
    flags.DEFINE_integer("unit_steps", None, "steps on the unit embeddings alone", lower_bound=1)
    flags.DEFINE_float("unit_learning_rate", None, "peak rate of those", lower_bound=0.0)
    flags.DEFINE_integer("whole_steps", None, "steps on all weights; 0 for none", lower_bound=0)
    flags.DEFINE_float("whole_learning_rate", None, "peak rate of those", lower_bound=0.0)
    flags.DEFINE_float("dropout", None, "residual dropout", lower_bound=0.0, upper_bound=0.95)
    flags.DEFINE_float(
        "prior_trials", None, "trials that the source's scale of velocity counts for", 0.0
    )
    flags.DEFINE_integer("seed", 0, "seed of the training")
    flags.DEFINE_string("device", "cpu", "where to train: cpu or cuda")


def source_paths() -> tuple[Path, tuple[Path, ...]]:
    """Where the model is, and the recordings that tell of its units."""
    values = flags.FLAGS
    return Path(values.model), tuple(Path(path) for path in values.source_session)


def config(recording: Session, n_trials: int) -> AdaptationConfig:
    """The recording's recipe for a number of trials, with the flags that were given in place."""
    values = flags.FLAGS
    base = adaptation_recipe(recording, n_trials)
    units = _stage(base.units, values.unit_steps, values.unit_learning_rate)
    whole = base.whole
    if values.whole_steps == 0:
        whole = None
    elif whole:
        whole = _stage(whole, values.whole_steps, values.whole_learning_rate)
    given = {n: getattr(values, n) for n in ("dropout", "prior_trials")}
    return dataclasses.replace(
        base,
        units=units,
        whole=whole,
        **{name: value for name, value in given.items() if value is not None},
    )


def _stage(fit: FitConfig, steps: int | None, rate: float | None) -> FitConfig:
    return dataclasses.replace(
        fit,
        steps=fit.steps if steps is None else steps,
        learning_rate=fit.learning_rate if rate is None else rate,
        seed=flags.FLAGS.seed,
    )
