"""What fixes a decoder's shape, and the named sizes."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cortex.errors import InputError
from cortex.time_grid import TimeGrid

# Width, blocks, heads and latents a step. `nano` is for recordings of a few minutes, which larger
# models overfit, and for a demonstration on a CPU.
SIZES: dict[str, dict[str, int]] = {
    "nano": {"dim": 128, "blocks": 2, "heads": 4, "latents_per_step": 2},
    "XS": {"dim": 256, "blocks": 5, "heads": 4, "latents_per_step": 4},
    "S": {"dim": 512, "blocks": 7, "heads": 8, "latents_per_step": 8},
    "M": {"dim": 768, "blocks": 11, "heads": 12, "latents_per_step": 12},
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder.

    Attributes:
        n_units: size of the unit vocabulary.
        grid: the time grid.
        dim: width D of tokens and latents.
        blocks: self-attention blocks.
        heads: attention heads; divides dim into even head widths.
        latents_per_step: latents L that each step owns.
        event_steps: steps of events that a step's latents attend, its own included.
        readout_steps: steps of latents that a readout query attends, its own included.
        movements: kinds of movement that the velocity readout mixes; 1 for none.
        max_count: spikes a bin beyond which counts share a bucket.
        weighting: cross-attention weights, "sigmoid" or "softmax".
        dropout: probability of dropping residual updates' elements in training.
    """

    n_units: int
    grid: TimeGrid
    dim: int = 256
    blocks: int = 5
    heads: int = 4
    latents_per_step: int = 4
    event_steps: int = 8
    readout_steps: int = 4
    movements: int = 1
    max_count: int = 8
    weighting: Literal["sigmoid", "softmax"] = "sigmoid"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raises InputError on a shape that no model can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise InputError(
                    f"model config: {field.name} must be a positive integer, not {value!r}"
                )
        if self.dim % (2 * self.heads):
            raise InputError(
                f"model config: dim {self.dim} is not an even multiple of {self.heads} heads"
            )
        if self.weighting not in ("sigmoid", "softmax"):
            raise InputError(
                f"model config: weighting must be sigmoid or softmax, not {self.weighting!r}"
            )
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise InputError(f"model config: dropout must be in [0, 1), not {self.dropout!r}")

    @classmethod
    def of_size(cls, size: str, **fields: Any) -> "ModelConfig":
        """A config of a named size. Raises InputError on an unknown name."""
        if size not in SIZES:
            raise InputError(f"model size {size!r} is unknown, expected one of {', '.join(SIZES)}")
        return cls(**{**SIZES[size], **fields})

    def to_dict(self) -> dict[str, Any]:
        """The fields, for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of to_dict. Raises InputError on a missing or unknown field."""
        try:
            return cls(**{**values, "grid": TimeGrid.from_dict(values["grid"])})
        except KeyError as error:
            raise InputError(f"model config: {error} is missing") from error
        except TypeError as error:
            raise InputError(f"model config: {error}") from error
