"""How much each layer alone minds being in int8, and which layers had better not be."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cortex.model import Model
from cortex.quantized_model import float_layers, int8_form
from cortex.session import FloatArray
from training.evaluation.sample_decoding import Decode, decode_samples, labels
from training.samples.trial_samples import TrialSample


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """What rounding does to the decoded velocity.

    Attributes:
        layer: its name.
        r2_lost: mean square of what the velocity changes by, over the variance of the recorded
            one, mean of x and y. By so much R2 falls where the change has nothing to do with the
            decoder's own errors; changes of several layers add up alike.
    """

    layer: str
    r2_lost: float


class VelocityChange:
    """Compares decoded velocities with those of a float model."""

    def __init__(
        self, model: Model, samples: Sequence[TrialSample], device: torch.device | str = "cpu"
    ) -> None:
        """Decodes the trials with the float model, which is on the device."""
        self._samples = samples
        self._device = device
        self._exact = self._decoded(model)
        self._variance = np.concatenate(labels(samples)).var(0, dtype=np.float64)

    def r2_lost(self, decode: Decode) -> float:
        """As in LayerError, for any model."""
        change = self._decoded(decode).astype(np.float64) - self._exact
        return float((np.square(change).mean(0) / self._variance).mean())

    def _decoded(self, decode: Decode) -> FloatArray:
        return np.concatenate(decode_samples(decode, self._samples, self._device))


def layer_errors(
    model: Model,
    change: VelocityChange,
    in_scales: Mapping[str, float],
    on_layer: Callable[[str], object] = lambda _: None,
) -> list[LayerError]:
    """Each layer's error while all others stay as they are, in the order of their use.

    Args:
        model: the float model.
        change: what measures.
        in_scales: static steps of inputs, as in `input_scales`; empty for one a row.
        on_layer: called with a layer's name once it is measured.
    """
    probe = copy.deepcopy(model)
    errors = []
    for name, layer in float_layers(probe).items():
        with torch.no_grad():
            probe.set_submodule(name, int8_form(layer, in_scales.get(name)))
        errors.append(LayerError(layer=name, r2_lost=change.r2_lost(probe)))
        probe.set_submodule(name, layer)
        on_layer(name)
    return errors


def most_sensitive(errors: Sequence[LayerError], most_r2_lost: float) -> list[str]:
    """The fewest layers without which the others' errors add up to at most `most_r2_lost`."""
    left = sum(error.r2_lost for error in errors)
    kept = []
    for error in sorted(errors, key=lambda error: -error.r2_lost):
        if left <= most_r2_lost:
            break
        kept.append(error.layer)
        left -= error.r2_lost
    return kept
