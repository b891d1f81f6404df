"""What a run was made of, for its model card."""

import hashlib
import platform

import numpy as np
import torch

from cortex.session import Session


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


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def device_name(device: torch.device) -> str:
    """What computes: a GPU's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
