"""From a session to a checkpoint: the whole of training as one call."""

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from cortex.checkpoint import Checkpoint
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.session import Session
from training.fit import FitConfig, fit
from training.trial_samples import trial_samples


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        size: a named model size.
        weighting: cross-attention weights, "sigmoid" or "softmax".
        dropout: of the residual updates.
        fit: the optimisation.
        device: where to train.
    """

    size: str = "nano"
    weighting: str = "sigmoid"
    dropout: float = 0.2
    fit: FitConfig = field(default_factory=FitConfig)
    device: str = "cpu"


def train_decoder(
    session: Session,
    trials: Sequence[int],
    config: TrainConfig,
    *,
    card: dict[str, object] | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Checkpoint:
    """Trains a decoder on some trials of a session.

    Args:
        session: the recording.
        trials: the trials that may be learnt from.
        config: what and how.
        card: more for the model card, such as the split.
        on_step: called after each optimiser step with its number and loss.

    Returns:
        The checkpoint, not yet saved, with a model card of every input.

    Raises:
        InputError: the size is unknown, or the trials hold no label.
    """
    torch.manual_seed(config.fit.seed)
    model_config = ModelConfig.of_size(
        config.size,
        n_units=len(session.unit_ids),
        grid=session.grid,
        weighting=config.weighting,
        dropout=config.dropout,
    )
    model = Model(model_config).to(config.device)
    fitted = fit(model, trial_samples(session, trials), config.fit, on_step)
    return Checkpoint(
        model=fitted.cpu(),
        name=config.size,
        unit_ids=session.unit_ids,
        velocity_unit=session.behavior.unit,
        card={
            "session_id": session.session_id,
            "subject": session.subject,
            "session_digest": session_digest(session),
            "train_trials": [int(t) for t in trials],
            "config": asdict(config),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            **(card or {}),
        },
    )


def session_digest(session: Session) -> str:
    """SHA-256 over all that training reads of a session."""
    digest = hashlib.sha256(repr((session.unit_ids, session.grid)).encode())
    for column in (
        *vars(session.events).values(),
        session.behavior.time_bin,
        session.behavior.velocity,
        session.trials.start_bin,
        session.trials.stop_bin,
    ):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
