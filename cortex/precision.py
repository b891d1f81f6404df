"""Weights in bfloat16, for GPUs."""

import copy
from typing import Literal

import torch

from cortex.model import Model

Precision = Literal["fp32", "bf16"]


@torch.no_grad()
def to_bfloat16(model: Model) -> Model:
    """A copy with the network's parameters rounded; what scales its answers stays in float32.

    The kinds' evidence is a sum over many spikes, and mean and scale multiply every velocity: their
    rounding would show, and they weigh nothing.
    """
    # In evaluation anew, so that nothing that was prepared from the wider parameters stays.
    model = copy.deepcopy(model).eval()
    for name, parameter in model.named_parameters():
        if not name.startswith("evidence."):
            parameter.data = parameter.data.bfloat16()
    return model
