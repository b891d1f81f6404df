"""Which layers of a model are in 8-bit integers, and how their inputs are rounded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cortex.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What config.json says of an INT8 model.

    Attributes:
        kept: names of the layers whose weights stay in bfloat16; all others are in int8.
        input_scales: for every int8 layer that adds to a residual, by name, the step of its rounded
            inputs, which hold at most 127 steps; empty where each row has a step of its own.
    """

    kept: tuple[str, ...] = ()
    input_scales: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError on a scale that is not positive and finite."""
        for name, scale in self.input_scales.items():
            if not isinstance(scale, int | float) or not 0 < scale < math.inf:
                raise InputError(
                    f"quantization: input_scales.{name} is {scale!r}, expected a positive number"
                )

    @property
    def activations(self) -> str:
        """Where the steps of rounded inputs come from: "static" or "dynamic"."""
        return "static" if self.input_scales else "dynamic"

    def to_dict(self) -> dict[str, Any]:
        """The fields, for config.json."""
        return {"kept": list(self.kept), "input_scales": dict(self.input_scales)}

    @classmethod
    def from_dict(cls, values: Any) -> "Quantization":
        """The inverse of to_dict. Raises InputError on anything else than to_dict gives."""
        if not isinstance(values, dict) or values.keys() != {"kept", "input_scales"}:
            raise InputError(f"quantization is {values!r}, expected kept and input_scales")
        kept, scales = values["kept"], values["input_scales"]
        if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
            raise InputError(f"quantization: kept is {kept!r}, expected a list of layers' names")
        if not isinstance(scales, dict):
            raise InputError(f"quantization: input_scales is {scales!r}, expected numbers by name")
        return cls(kept=tuple(kept), input_scales=scales)
