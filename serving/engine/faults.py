"""Errors of the model, told apart by what they cost."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serving.engine.errors import ModelError
from serving.engine.model import Velocity


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What to do about errors of the model.

    Attributes:
        is_fatal: tells errors after which the model cannot be used any more, such as a fault of
            the device.
        recover: called after any other error, before the model is used again.
    """

    is_fatal: Callable[[Exception], bool] = lambda error: False
    recover: Callable[[Exception], None] = lambda error: None

    def of_batch(self, error: Exception) -> ModelError:
        """What is said to a batch that failed. Raises the error itself if it is fatal."""
        if self.is_fatal(error):
            raise error
        said = (
            error
            if isinstance(error, ModelError)
            else ModelError(f"the model failed: {type(error).__name__}: {error}".splitlines()[0])
        )
        # The traceback holds whatever the failed batch had in memory.
        error.__traceback__ = None
        self.recover(error)
        return said


def check_velocity(velocity_B2: Velocity, size: int) -> None:
    """Raises ModelError unless there is a velocity for each row of a batch."""
    if np.shape(velocity_B2) != (size, 2):
        raise ModelError(
            f"the model answered {size} requests with an array of shape {np.shape(velocity_B2)}, "
            f"expected {(size, 2)}"
        )


def not_finite() -> ModelError:
    """What is said to a row whose velocity is not a number."""
    return ModelError("the model answered with a velocity that is not finite")
