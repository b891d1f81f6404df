"""A recording in seconds, as an NWB file holds it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One session before it is put on a time grid.

    Attributes:
        session_id: name of the recording.
        subject: name of the subject.
        description: one line on where it comes from.
        unit_ids: number of each unit, as sorted: 1011 is the first unit of electrode 101.
        spike_times: (spikes,) of each unit, ascending.
        obs_intervals: (k, 2) start and end of each span in which the units were observed.
        sample_times: (T,) of the kinematics, ascending, with gaps where nothing was recorded.
        hand_pos: (T, 2) mm.
        hand_vel: (T, 2) mm/s.
        trial_start: (n,) start of each trial.
        trial_stop: (n,) end of each trial.
        trial_columns: more numbers a trial, by name, each (n, ...), such as move_onset_time.
    """

    session_id: str
    subject: str
    description: str
    unit_ids: tuple[int, ...]
    spike_times: tuple[Seconds, ...]
    obs_intervals: npt.NDArray[np.float64]
    sample_times: Seconds
    hand_pos: npt.NDArray[np.float64]
    hand_vel: npt.NDArray[np.float64]
    trial_start: Seconds
    trial_stop: Seconds
    trial_columns: dict[str, npt.NDArray[np.float64]]
