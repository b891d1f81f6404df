"""A simulated session's truth, made again from its configuration."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cortex.data.nwb_times import to_bins
from cortex.data.reaches import MS, Reach
from cortex.data.recording import Recording
from cortex.data.simulated_file import read_simulator_config
from cortex.data.simulator import Tuning, draw_truth, simulate
from cortex.errors import InputError
from cortex.events import IntArray
from cortex.session import FloatArray, Session
from training.oracle.observed_trial import ObservedTrial, observe
from training.samples.targets import trial_targets

# Processors differ in the last digit of exp, which decides over one spike in some hundred million
# draws, and over a few after it.
SPIKES_THAT_MAY_DIFFER = 1e-5


@dataclass(frozen=True, kw_only=True)
class SimulatedTrial:
    """One trial for the oracle.

    Attributes:
        index: place of the trial in the session.
        observed: its spikes and the units' true tuning.
        step_stop_ms: (n,) end of each labelled step, in ms from the trial's start.
        bin_ms: ms of the bin before it, which the label is the mean over.
        velocity: (n, 2) the labels, in mm/s.
    """

    index: int
    observed: ObservedTrial
    step_stop_ms: IntArray
    bin_ms: int
    velocity: FloatArray


class SimulatedSession:
    """What the simulator drew for a session, and every spike at its millisecond."""

    def __init__(self, path: Path, session: Session) -> None:
        """Simulates the file again.

        Args:
            path: a file that `training:simulate` wrote.
            session: the same file as `open_session` reads it.

        Raises:
            InputError: the file was not simulated, or holds something else than what its
                configuration gives.
        """
        config = read_simulator_config(path)
        if session.grid.bin_us % 1000:
            raise InputError(f"{path}: bins of {session.grid.bin_us} us, expected whole ms")
        recording = simulate(config)
        tuning, self._reaches = draw_truth(config, np.random.default_rng(config.seed))
        kept = np.flatnonzero(~np.array(recording.heldout))
        self._tuning = Tuning(**{name: column[kept] for name, column in vars(tuning).items()})
        self._session, self._path = session, path
        self._start_ms = np.round(recording.trial_start / MS).astype(np.int64)
        self._refuse_other_spikes(recording, kept)
        ms = np.concatenate([_milliseconds(recording.spike_times[unit]) for unit in kept])
        unit = np.repeat(np.arange(len(kept)), [len(recording.spike_times[i]) for i in kept])
        order = ms.argsort(kind="stable")
        self._spike_ms, self._spike_unit = ms[order], unit[order]

    def trial(self, index: int) -> SimulatedTrial:
        """One trial.

        Raises:
            InputError: its labels are not the velocity that the simulator drew.
        """
        session, reach, start_ms = self._session, self._reaches[index], self._start_ms[index]
        bin_ms = session.grid.bin_us // 1000
        steps, velocity = trial_targets(session, index)
        stop_bin = session.trials.start_bin[index] + (steps + 1) * session.grid.bins_per_step
        stop_ms = stop_bin * bin_ms - start_ms
        if not np.allclose(velocity, _label(reach, stop_ms, bin_ms), rtol=1e-5, atol=1e-2):
            raise InputError(
                f"{self._path}: the hand's velocity in trial {index} is not what its notes' "
                "configuration gives, expected a file as training:simulate wrote it"
            )
        return SimulatedTrial(
            index=index,
            observed=observe(self._spikes(index), self._tuning),
            step_stop_ms=stop_ms,
            bin_ms=bin_ms,
            velocity=velocity,
        )

    def _spikes(self, index: int) -> npt.NDArray[np.bool_]:
        """Spikes (ms, units) of a trial."""
        start, n_ms = self._start_ms[index], len(self._reaches[index].velocity)
        part = slice(*np.searchsorted(self._spike_ms, (start, start + n_ms)))
        spikes = np.zeros((n_ms, len(self._tuning.log_rate)), np.bool_)
        spikes[self._spike_ms[part] - start, self._spike_unit[part]] = True
        return spikes

    def _refuse_other_spikes(self, recording: Recording, kept: IntArray) -> None:
        session, path = self._session, self._path
        again = "expected what its notes' configuration gives"
        names = tuple(str(recording.unit_ids[unit]) for unit in kept)
        if session.unit_ids != names or len(session.trials) != len(recording.trial_start):
            raise InputError(
                f"{path}: {len(session.unit_ids)} units and {len(session.trials)} trials, {again}: "
                f"{len(names)} and {len(recording.trial_start)}"
            )
        if not np.isfinite(self._tuning.log_rate).any():
            raise InputError(f"{path}: every unit is silent by design, expected one that fires")
        bins = [to_bins(recording.spike_times[unit], session.grid) for unit in kept]
        key = np.concatenate(
            [session.events.time_bin * len(kept) + session.events.unit]
            + [each * len(kept) + unit for unit, each in enumerate(bins)]
        )
        spikes = sum(map(len, bins))
        count = np.concatenate([session.events.value, np.full(spikes, -1)])
        _, which = np.unique(key, return_inverse=True)
        differ = np.abs(np.bincount(which, count)).sum() if len(key) else 0
        if differ > SPIKES_THAT_MAY_DIFFER * spikes:
            raise InputError(f"{path}: {differ:.0f} of its spikes are not of the {spikes}, {again}")


def _milliseconds(seconds: npt.NDArray[np.float64]) -> IntArray:
    return np.round(seconds / MS).astype(np.int64)


def _label(reach: Reach, stop_ms: IntArray, bin_ms: int) -> npt.NDArray[np.float64]:
    """Mean velocity (n, 2) over the bins that end at some milliseconds."""
    at = stop_ms[:, None] - 1 - np.arange(bin_ms)
    inside = (at >= 0) & (at < len(reach.velocity))
    velocity = reach.velocity[at.clip(0, len(reach.velocity) - 1)] * inside[..., None]
    mean: npt.NDArray[np.float64] = velocity.sum(1) / np.maximum(inside.sum(1), 1)[:, None]
    return mean
