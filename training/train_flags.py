"""The flags that choose sessions, their split and a training configuration.

Binaries that train call `define` at their top, so that they share one set of names.
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from cortex.data.open_session import open_session
from cortex.session import Session
from cortex.time_grid import TimeGrid
from training.fitting.recipe import recipe
from training.fitting.train_config import TrainConfig


def define() -> None:
    """Defines the flags. None means: what suits the recording."""
    flags.DEFINE_string("size", None, "model size: nano, XS, S or M")
    flags.DEFINE_integer("steps", None, "optimiser steps", lower_bound=1)
    flags.DEFINE_integer("batch_trials", None, "trials a step", lower_bound=1)
    flags.DEFINE_float("learning_rate", None, "peak learning rate", lower_bound=0.0)
    flags.DEFINE_float("weight_decay", None, "AdamW's weight decay", lower_bound=0.0)
    flags.DEFINE_float("dropout", None, "residual dropout", lower_bound=0.0, upper_bound=0.95)
    flags.DEFINE_float("event_dropout", None, "share of events hidden", 0.0, 0.95)
    flags.DEFINE_float("unit_dropout", None, "largest share of silenced units", 0.0, 1.0)
    flags.DEFINE_float("unit_mixing", None, "largest share of units from another trial", 0.0, 1.0)
    flags.DEFINE_integer("movements", None, "kinds of movement that the readout mixes", 1)
    flags.DEFINE_float("movement_weight", None, "weight of the loss of the kind", lower_bound=0.0)
    flags.DEFINE_float(
        "expert_weight", None, "weight of the velocity loss of a trial's own kind", lower_bound=0.0
    )
    flags.DEFINE_integer("crop_steps", None, "longest piece of a trial in training, steps", 1)
    flags.DEFINE_float("velocity_weight", None, "weight of the velocity loss", lower_bound=0.0)
    flags.DEFINE_float("masked_weight", None, "weight of the masked-spike loss", lower_bound=0.0)
    flags.DEFINE_float(
        "validation_share", None, "share of the training trials for early stopping", 0.0, 0.5
    )
    flags.DEFINE_enum("precision", None, ["fp32", "bf16"], "of parameters and activations")
    flags.DEFINE_bool("compile_blocks", None, "compile the self-attention blocks")
    flags.DEFINE_enum("weighting", None, ["sigmoid", "softmax"], "cross-attention weights")
    flags.DEFINE_integer("seed", 0, "seed of the model and the training")
    flags.DEFINE_integer("split_seed", 0, "seed of the split by trial")
    flags.DEFINE_string("series", None, "recorded series to decode, such as cursor_pos")
    flags.DEFINE_float("bin_ms", None, "bin width of an NWB session, ms", lower_bound=0.001)
    flags.DEFINE_integer("bins_per_step", None, "bins a decoding step", lower_bound=1)
    flags.DEFINE_integer("window_steps", None, "steps of self-attention", lower_bound=1)
    flags.DEFINE_string("device", "cpu", "where to train: cpu or cuda")


def session(path: Path) -> Session:
    """The session at a path, on the grid that the flags ask for.

    Raises:
        InputError: the file cannot be used, or the grid is not one that it can have.
    """
    values = flags.FLAGS
    fields = {
        "bin_us": None if values.bin_ms is None else round(values.bin_ms * 1000),
        "bins_per_step": values.bins_per_step,
        "window_steps": values.window_steps,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return open_session(path, TimeGrid(**given) if given else None, series=values.series)


def train_config(recording: Session) -> TrainConfig:
    """The recording's recipe with the flags that were given in place."""
    base = recipe(recording, flags.FLAGS.size or TrainConfig.size)
    augmentation = dataclasses.replace(
        base.fit.augmentation,
        **_given("event_dropout", "unit_dropout", "unit_mixing", "crop_steps"),
    )
    fit = dataclasses.replace(
        base.fit,
        augmentation=augmentation,
        **_given(
            *("steps", "batch_trials", "learning_rate", "weight_decay", "velocity_weight"),
            *(
                "masked_weight",
                "movement_weight",
                "expert_weight",
                "precision",
                "compile_blocks",
                "seed",
            ),
        ),
    )
    shape = {**base.shape, **_given("weighting", "movements")}
    given = _given("dropout", "validation_share")
    return dataclasses.replace(base, fit=fit, shape=shape, **given)


def _given(*names: str) -> dict[str, Any]:
    values = flags.FLAGS
    return {n: getattr(values, n) for n in names if getattr(values, n) is not None}
