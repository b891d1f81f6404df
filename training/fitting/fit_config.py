"""How a model is fitted."""

from dataclasses import dataclass, field
from typing import Literal

from cortex.errors import InputError
from training.samples.augmentation import AugmentationConfig


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The optimisation.

    Attributes:
        steps: optimiser steps.
        batch_trials: trials a step, over all processes together.
        learning_rate: peak of the schedule: a linear warm-up, then half a cosine to zero.
        warmup_share: share of the steps that warm up.
        weight_decay: AdamW's.
        embedding_eps: AdamW's epsilon for the unit embeddings. Of the size of a busy unit's
            gradient it keeps units that hardly fire from learning their few spikes by heart.
        clip_norm: largest norm of the gradient.
        masked_weight: weight of the masked-spike loss beside the velocity loss.
        masked_per_step: units a step whose counts are hidden.
        velocity_weight: weight of the velocity loss; 0 to learn from spikes alone.
        movement_weight: weight of the loss of the kind of movement, where the model mixes kinds.
        expert_weight: weight of the velocity loss of each trial's own kind of movement, likewise.
        average_decay: decay of the weights' running average, which is what is kept.
        validate_every: steps between looks at the validation trials, where there are any.
        patience: looks without an improvement after which training stops.
        precision: "fp32", or "bf16": parameters and activations in bfloat16, gradients reduced and
            the optimiser's own copy kept in float32.
        compile_blocks: compile the self-attention blocks with torch.compile.
        train_only: beginnings of the names of the parameters that learn, such as ("velocity.",);
            the others stay as they are. Empty for all.
        keep_scale: keep the mean and scale of the velocity that the model has, rather than take
            them from the training labels.
        seed: of every random choice.
        augmentation: variation of the trials.
    """

    steps: int = 300
    batch_trials: int = 32
    learning_rate: float = 2e-3
    warmup_share: float = 0.15
    weight_decay: float = 0.02
    embedding_eps: float = 1e-8
    clip_norm: float = 1.0
    masked_weight: float = 0.02
    masked_per_step: int = 4
    velocity_weight: float = 1.0
    movement_weight: float = 0.3
    expert_weight: float = 1.0
    average_decay: float = 0.98
    validate_every: int = 50
    patience: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    compile_blocks: bool = False
    train_only: tuple[str, ...] = ()
    keep_scale: bool = False
    seed: int = 0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        """Raises InputError on what cannot be run."""
        for name in ("steps", "batch_trials", "validate_every", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"training: {name} is {getattr(self, name)}, expected at least 1")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"training: precision is {self.precision!r}, expected fp32 or bf16")
        if self.velocity_weight == 0 and self.masked_weight == 0:
            raise InputError("training: velocity_weight and masked_weight are both 0")
