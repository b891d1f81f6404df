"""From a float checkpoint to an INT8 one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from torch import nn

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.model import Model
from cortex.quantization import Quantization
from cortex.quantized_model import float_layers, quantized, stored_tensors
from cortex.session import Session
from training.evaluation.evaluation import held_out_split
from training.evaluation.model_trials import model_trials
from training.quantization.input_scales import input_scales
from training.quantization.sensitivity import (
    LayerError,
    VelocityChange,
    layer_errors,
    most_sensitive,
)
from training.samples.trial_samples import TrialSample


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """How to quantise.

    Attributes:
        activations: "dynamic" for a step a row at run time, "static" for calibrated ones.
        percentile: of absolute inputs, which static steps reach.
        embeddings: what the tokens' tables are kept in.
        most_r2_lost: what all layers in int8 may cost together, as in `LayerError.r2_lost`.
        keep_layers: layers that stay in bfloat16 whatever they cost.
        trials: calibration trials of a session, from those that the model was trained on: half of
            them for static steps, half for the errors.
        seed: of the choice of these trials.
    """

    activations: Literal["dynamic", "static"] = "dynamic"
    percentile: float = 99.0
    embeddings: Literal["int8", "bf16"] = "int8"
    most_r2_lost: float = 0.002
    keep_layers: tuple[str, ...] = ()
    trials: int = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What came out.

    Attributes:
        checkpoint: the INT8 model; its card tells how it was made.
        errors: each layer's, alone.
        sensitive: layers that stay in bfloat16 for their errors.
        r2_lost: all together, as they are now.
    """

    checkpoint: Checkpoint
    errors: tuple[LayerError, ...]
    sensitive: tuple[str, ...]
    r2_lost: float


def quantize_checkpoint(
    checkpoint: Checkpoint,
    sessions: Sequence[Session],
    config: QuantizeConfig,
    *,
    device: str = "cpu",
    on_layer: Callable[[str], object] = lambda _: None,
) -> Quantized:
    """Calibrates on trials that the model was trained on, and never on held-out ones.

    Args:
        checkpoint: a float model; it is moved to the device.
        sessions: recordings that it was trained on.
        config: how.
        device: where to decode.
        on_layer: called with a layer's name once its error is measured.

    Raises:
        InputError: the model is in int8 already, a session is not the model's, or has too few
            trials, or a layer to keep is unknown.
    """
    checkpoint.require_float()
    trials = {s.session_id: _calibration_trials(checkpoint, s, config) for s in sessions}
    halves = [
        [
            sample
            for session in sessions
            for sample in model_trials(checkpoint, session, trials[session.session_id][half])
        ]
        for half in (0, 1)
    ]
    _require_labels(halves[1])
    model = checkpoint.model.to(device).eval()
    static = config.activations == "static"
    scales = input_scales(model, halves[0], config.percentile, device) if static else {}
    change = VelocityChange(model, halves[1], device)
    errors = layer_errors(model, change, scales, on_layer)
    asked = _asked_to_keep(model, config)
    sensitive = most_sensitive([e for e in errors if e.layer not in asked], config.most_r2_lost)
    kept = [name for name in float_layers(model) if name in asked or name in sensitive]
    small = quantized(
        model,
        Quantization(
            kept=tuple(kept),
            input_scales={name: s for name, s in scales.items() if name not in kept},
        ),
    )
    r2_lost = change.r2_lost(small)
    card = {
        "from": checkpoint.digest,
        "config": asdict(config),
        "calibration_trials": trials,
        "kept_in_bf16": kept,
        "sensitive": sensitive,
        "r2_lost_alone": {e.layer: e.r2_lost for e in errors},
        "r2_lost": r2_lost,
    }
    return Quantized(
        checkpoint=replace(
            checkpoint,
            model=small.cpu(),
            card={**checkpoint.card, "quantization": card},
            digest="",
        ),
        errors=tuple(errors),
        sensitive=tuple(sensitive),
        r2_lost=r2_lost,
    )


def weights_mb(model: Model) -> float:
    """Size of the model's tensors in a checkpoint, in millions of bytes."""
    return sum(t.numel() * t.element_size() for t in stored_tensors(model).values()) / 1e6


def _calibration_trials(
    checkpoint: Checkpoint, session: Session, config: QuantizeConfig
) -> tuple[list[int], list[int]]:
    """Trials for the steps and for the errors."""
    train, _ = held_out_split(checkpoint, session)
    if len(train) < 2:
        raise InputError(
            f"session {session.session_id!r}: the model was trained on {len(train)} trial(s), "
            "expected at least 2 to calibrate on"
        )
    chosen = np.random.default_rng(config.seed).permutation(train)[: max(config.trials, 2)]
    return chosen[::2].tolist(), chosen[1::2].tolist()


def _require_labels(samples: Sequence[TrialSample]) -> None:
    labelled = sum(int(s.labelled[:, -1].sum()) for s in samples)
    if labelled < 2:
        raise InputError(f"calibration trials hold {labelled} velocity labels, expected 2 or more")


def _asked_to_keep(model: Model, config: QuantizeConfig) -> set[str]:
    layers = float_layers(model)
    for name in config.keep_layers:
        if name not in layers:
            raise InputError(
                f"layer {name!r} to keep is unknown, expected one of {', '.join(layers)}"
            )
    tables = {name for name, layer in layers.items() if isinstance(layer, nn.Embedding)}
    return {*config.keep_layers, *(tables if config.embeddings == "bf16" else ())}
