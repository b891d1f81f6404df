"""Which simulation an NWB file holds, as its notes say."""

import json
from pathlib import Path

from pynwb import NWBHDF5IO

from cortex.data.simulator import SimulatorConfig
from cortex.errors import InputError


def read_simulator_config(path: Path) -> SimulatorConfig:
    """The configuration that a file was simulated with.

    Raises:
        InputError: the file is missing, is not NWB, or does not say that it was simulated.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
            notes = io.read().notes
    except Exception as error:
        # pynwb and h5py raise almost anything on a file that is not what they expect.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable NWB file: {reason}") from error
    try:
        return SimulatorConfig(**json.loads(notes or "")["simulator"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a simulated session: its notes hold no simulator's configuration, "
            "expected a file that training:simulate wrote"
        ) from error
