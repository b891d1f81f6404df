"""A recording in seconds, as an NWB file holds it."""

from dataclasses import dataclass, replace

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
        hand_pos: (T, 2) position of the effector, mm.
        hand_vel: (T, 2) velocity of the effector, mm/s.
        trial_start: (n,) start of each trial.
        trial_stop: (n,) end of each trial.
        trial_columns: more numbers a trial, by name, each (n, ...), such as move_onset_time;
            NaN where there is none.
        split: each trial's split; left out, "none" for all.
        heldout: whether the benchmark holds each unit out of the input; left out, none.
        effector: what moves, "hand", "finger" or "cursor": the series are named after it.
        cursor_pos: (T, 2) mm, where the cursor was recorded beside the effector.
        notes: more for programs to read, such as what a simulator was asked for.
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
    split: tuple[str, ...] = ()
    heldout: tuple[bool, ...] = ()
    effector: str = "hand"
    cursor_pos: npt.NDArray[np.float64] | None = None
    notes: str = ""

    def without_answers(self) -> "Recording":
        """What the benchmark's test file would hold: held-in spikes within trials, no behaviour.

        Of what happened in the trials only the onset of movement stays.
        """
        kept = [i for i, out in enumerate(self.heldout or (False,) * len(self.unit_ids)) if not out]
        return replace(
            self,
            unit_ids=tuple(self.unit_ids[i] for i in kept),
            spike_times=tuple(self.spike_times[i] for i in kept),
            obs_intervals=np.stack([self.trial_start, self.trial_stop], 1),
            sample_times=np.empty(0),
            hand_pos=np.empty((0, 2)),
            hand_vel=np.empty((0, 2)),
            trial_columns={
                name: column
                for name, column in self.trial_columns.items()
                if name == "move_onset_time"
            },
            split=("test",) * len(self.trial_start),
            heldout=(),
            cursor_pos=None,
            # A simulation's configuration is all of its answers.
            notes="",
        )
