"""Static steps of rounded inputs, from the inputs that a model sees in calibration trials.

Every value counts once: the percentile is that of all absolute inputs of a layer, not of each
trial's largest one, which a single outlier decides. What lies beyond it is clipped.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cortex.errors import InputError
from cortex.linear_add import LinearAdd
from cortex.model import Model
from cortex.quantized_model import float_layers
from training.evaluation.sample_decoding import decode_samples
from training.samples.trial_samples import TrialSample

# Absolute values are counted by the bits of their bfloat16, whose sign is zero.
_BUCKETS = 2**15
_STEPS = 127


def input_scales(
    model: Model,
    samples: Sequence[TrialSample],
    percentile: float,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """For every layer that adds to a residual, the step with which 127 steps reach the percentile.

    Args:
        model: a float model, on the device.
        samples: calibration trials.
        percentile: of the layer's absolute inputs, in (0, 100].
        device: where the model is.

    Raises:
        InputError: there is no trial, or the percentile of a layer's inputs is zero.
    """
    layers = {n: m for n, m in float_layers(model).items() if isinstance(m, LinearAdd)}
    counts = {name: torch.zeros(_BUCKETS, dtype=torch.int64, device=device) for name in layers}
    hooks = [
        layer.register_forward_pre_hook(_counting(counts[name])) for name, layer in layers.items()
    ]
    try:
        # One by one: the steps that fill up a batch of unequal trials are nobody's inputs.
        for sample in samples:
            decode_samples(model, [sample], device)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _percentile(name, n, percentile) / _STEPS for name, n in counts.items()}


def _counting(count: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        bits = inputs[0].abs().bfloat16().view(torch.int16).flatten().int()
        count.add_(torch.bincount(bits, minlength=_BUCKETS))

    return hook


def _percentile(name: str, count: Tensor, percentile: float) -> float:
    total = count.cumsum(0).cpu()
    if not total[-1]:
        raise InputError("calibration: no trial given")
    bucket = torch.searchsorted(total, torch.ceil(total[-1] * (percentile / 100)).long())
    value = float(bucket.to(torch.int16).view(torch.bfloat16))
    if value == 0:
        raise InputError(
            f"calibration: the {percentile:g}th percentile of the inputs of {name} is zero; give a "
            "higher one, or activations with a step a row"
        )
    return value
