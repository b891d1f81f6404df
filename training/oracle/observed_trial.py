"""A trial's spikes, with what they say about rates whatever the reach was."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from cortex.data.reaches import MS
from cortex.data.simulator import Tuning

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ObservedTrial:
    """What is known of a trial before its reach is.

    Attributes:
        silence: (ms, units) expected spikes of each unit at rest, given its past spikes, in the
            milliseconds in which it did not fire; zero where it fired.
        spike_ms: (spikes,) ms of each spike, ascending.
        spike_unit: (spikes,) its unit.
        spike_log_mean: (spikes,) log of the expected spikes there at rest.
        direction: (units, 2) gain on velocity over the simulator's SPEED_SCALE.
        speed: (units,) gain on speed, likewise.
        plan: (units, 2) gain on the target's direction.
        lead_ms: (units,) time by which spikes lead the hand.
    """

    silence: FloatArray
    spike_ms: npt.NDArray[np.int64]
    spike_unit: npt.NDArray[np.int64]
    spike_log_mean: FloatArray
    direction: FloatArray
    speed: FloatArray
    plan: FloatArray
    lead_ms: npt.NDArray[np.int64]


def observe(spikes: npt.NDArray[np.bool_], tuning: Tuning) -> ObservedTrial:
    """A trial's spikes (ms, units) from its start on. Units that never fire by design are dropped.

    The history terms are those of `cortex.data.simulator`, which starts each trial without any.
    """
    live = np.isfinite(tuning.log_rate)
    spikes = spikes[:, live]
    past = spikes.astype(np.float64)
    refractory, rebound = (
        lfilter([0.0, 1.0], [1.0, -np.exp(-1 / tau_ms)], past, axis=0) for tau_ms in (3, 15)
    )
    log_mean = tuning.log_rate[live] + 0.4 * rebound - 6.0 * refractory + np.log(MS)
    ms, unit = np.nonzero(spikes)
    return ObservedTrial(
        silence=np.where(spikes, 0.0, np.exp(log_mean)),
        spike_ms=ms,
        spike_unit=unit,
        spike_log_mean=log_mean[ms, unit],
        direction=tuning.direction[live],
        speed=tuning.speed[live],
        plan=tuning.plan[live],
        lead_ms=tuning.lead_ms[live],
    )
