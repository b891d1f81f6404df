"""An answer that was computed at once, where one under way is expected."""

import numpy as np
import numpy.typing as npt


class Computed:
    """(B, 2) velocities that nobody need wait for."""

    def __init__(self, velocity_B2: npt.NDArray[np.float32]) -> None:
        """Args: what `wait` gives."""
        self._velocity_B2 = velocity_B2

    def done(self) -> bool:
        """True."""
        return True

    def wait(self) -> npt.NDArray[np.float32]:
        """The velocities."""
        return self._velocity_B2
