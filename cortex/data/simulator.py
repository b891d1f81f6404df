"""Simulates a session of maze reaches with neurons tuned to them.

A unit's rate is log-linear in the hand's velocity some 100 ms later (cosine tuning to direction,
and speed), in the direction of the coming target during the delay, and in its own recent spikes
(a refractory period, then a weak rebound). Spikes are Poisson within each millisecond.

Mean rates are lognormal with a share of silent units, as in two trials of MC_Maze (748 and 1356, of
3.2 and 3.6 s). Taken trial by trial over their 182 units, 16 and 14 % of the units do not fire; the
logarithm of the others' mean rate in Hz has mean 0.63 and 0.62, standard deviation 1.12 and 1.10.
Many of the silent units are only slow: over both trials together 8 % do not fire. For a long
recording the share of silent units is therefore on the high side.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from cortex.data.reaches import MS, Reach, random_reach
from cortex.data.recording import Recording
from cortex.errors import InputError

FloatArray = npt.NDArray[np.float64]

SPEED_SCALE = 400.0
TRIALS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """What to simulate.

    Attributes:
        trials: reaches.
        units: neurons.
        seed: fixes everything.
        log_rate_mean: mean of the log of units' baseline rates in Hz.
        log_rate_sd: its standard deviation.
        silent_share: share of units that never fire.
        tuning: mean strength of direction tuning, in log rate at SPEED_SCALE mm/s.
        lead_ms: mean time by which spikes lead the hand.
        heldout_units: how many of the units are marked as held out of the input.
        val_share: share of the trials in split "val", the others being in "train"; 0 puts none
            in either.
    """

    trials: int = 100
    units: int = 96
    seed: int = 0
    log_rate_mean: float = 0.62
    log_rate_sd: float = 1.11
    silent_share: float = 0.15
    tuning: float = 0.9
    lead_ms: float = 100.0
    heldout_units: int = 0
    val_share: float = 0.0

    def __post_init__(self) -> None:
        """Raises InputError on what cannot be simulated."""
        for name in ("trials", "units"):
            if getattr(self, name) < 1:
                raise InputError(f"simulator: {name} is {getattr(self, name)}, expected at least 1")
        for name in ("seed", "log_rate_sd", "tuning", "silent_share"):
            if not getattr(self, name) >= 0:
                raise InputError(f"simulator: {name} is {getattr(self, name)}, expected at least 0")
        if self.silent_share > 1:
            raise InputError(f"simulator: silent_share is {self.silent_share}, expected at most 1")
        if not 0 <= self.heldout_units < self.units:
            raise InputError(
                f"simulator: heldout_units is {self.heldout_units}, expected 0 to {self.units - 1}"
            )
        if not 0 <= self.val_share < 1:
            raise InputError(
                f"simulator: val_share is {self.val_share}, expected at least 0 and below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The units' true tuning.

    Attributes:
        log_rate: (units,) log of the baseline in Hz; -inf for a silent unit.
        direction: (units, 2) gain on velocity over SPEED_SCALE.
        speed: (units,) gain on speed over SPEED_SCALE.
        plan: (units, 2) gain on the target's direction during the delay.
        lead_ms: (units,) time by which spikes lead the hand.
    """

    log_rate: FloatArray
    direction: FloatArray
    speed: FloatArray
    plan: FloatArray
    lead_ms: npt.NDArray[np.int64]


def simulate(config: SimulatorConfig) -> Recording:
    """A recording, the same for the same configuration. Gaps between trials hold only spikes."""
    rng = np.random.default_rng(config.seed)
    tuning, reaches = draw_truth(config, rng)
    gap_ms = rng.integers(300, 2000, config.trials)
    length_ms = np.array([len(r.velocity) for r in reaches])
    # The first trial does not begin at 0 s, as in real files.
    start_ms = 500 + np.concatenate([[0], np.cumsum(length_ms + gap_ms)[:-1]])
    unit, spike_ms = _spikes(reaches, start_ms, gap_ms, tuning, rng)
    order = np.lexsort((spike_ms, unit))
    times = np.split(spike_ms[order] * MS, np.searchsorted(unit[order], np.arange(1, config.units)))
    start, stop = start_ms * MS, (start_ms + length_ms) * MS
    return Recording(
        session_id=f"simulated_{config.seed}",
        subject="simulated",
        description="simulated maze reaches with tuned Poisson units",
        unit_ids=tuple(1001 + 10 * i for i in range(config.units)),
        spike_times=tuple(times),
        obs_intervals=np.array([[0.0, stop[-1] + gap_ms[-1] * MS]]),
        sample_times=np.concatenate(
            [(s + np.arange(n)) * MS for s, n in zip(start_ms, length_ms, strict=True)]
        ),
        # In single precision, like the labels made from it: files compress to half.
        hand_pos=_single(np.concatenate([r.position for r in reaches])),
        hand_vel=_single(np.concatenate([r.velocity for r in reaches])),
        trial_start=start,
        trial_stop=stop,
        trial_columns={
            "target_pos": np.stack([r.target for r in reaches]),
            "target_on_time": start + np.array([r.target_on_ms for r in reaches]) * MS,
            "go_cue_time": start + np.array([r.go_cue_ms for r in reaches]) * MS,
            "move_onset_time": start + np.array([r.move_onset_ms for r in reaches]) * MS,
            # In ms, as the benchmark has these two.
            "delay": np.array([float(r.go_cue_ms - r.target_on_ms) for r in reaches]),
            "rt": np.array([float(r.move_onset_ms - r.go_cue_ms) for r in reaches]),
        },
        split=_split(config),
        heldout=_heldout(config),
        notes=json.dumps({"simulator": asdict(config)}),
    )


def _single(values: FloatArray) -> FloatArray:
    return values.astype(np.float32).astype(np.float64)


def _split(config: SimulatorConfig) -> tuple[str, ...]:
    """Each trial's split. A generator of its own: the spikes do not depend on the split."""
    if not config.val_share:
        return ("none",) * config.trials
    order = np.random.default_rng([config.seed, 1]).permutation(config.trials)
    n_val = round(config.trials * config.val_share)
    return tuple("val" if place < n_val else "train" for place in order.tolist())


def _heldout(config: SimulatorConfig) -> tuple[bool, ...]:
    """Which units are held out. A generator of its own, as for the split."""
    order = np.random.default_rng([config.seed, 2]).permutation(config.units)
    return tuple(place < config.heldout_units for place in order.tolist())


def draw_truth(config: SimulatorConfig, rng: np.random.Generator) -> tuple[Tuning, list[Reach]]:
    """The units' tuning and every trial's reach: what simulate(config) draws first."""
    tuning = random_tuning(config, rng)
    return tuning, [random_reach(rng) for _ in range(config.trials)]


def random_tuning(config: SimulatorConfig, rng: np.random.Generator) -> Tuning:
    """Tuning of each unit, with preferred directions spread evenly on average."""
    n = config.units
    log_rate = rng.normal(config.log_rate_mean - 0.2, config.log_rate_sd, n)
    log_rate[rng.permutation(n)[: round(n * config.silent_share)]] = -np.inf
    preferred, planned = rng.uniform(0, 2 * np.pi, (2, n))
    strength = rng.gamma(4.0, config.tuning / 4.0, n)
    return Tuning(
        log_rate=log_rate,
        direction=strength[:, None] * np.stack([np.cos(preferred), np.sin(preferred)], 1),
        speed=rng.normal(0.3, 0.2, n),
        plan=rng.gamma(2.0, 0.2, (n, 1)) * np.stack([np.cos(planned), np.sin(planned)], 1),
        lead_ms=np.clip(rng.normal(config.lead_ms, 25.0, n), 20, 180).astype(np.int64),
    )


def log_rates(reach: Reach, tuning: Tuning, n_ms: int) -> FloatArray:
    """(n_ms, units) log rate in Hz of each unit over a trial and the gap after it."""
    velocity = np.zeros((n_ms + 200, 2))
    velocity[: len(reach.velocity)] = reach.velocity / SPEED_SCALE
    drive = velocity @ tuning.direction.T + np.hypot(*velocity.T)[:, None] * tuning.speed
    ahead = np.arange(n_ms)[:, None] + tuning.lead_ms
    planning = np.zeros(n_ms)
    planning[reach.target_on_ms + 80 : reach.move_onset_ms] = 1.0
    plan = tuning.plan @ (reach.target / np.linalg.norm(reach.target))
    led: FloatArray = np.take_along_axis(drive, ahead, 0)
    return tuning.log_rate + led + planning[:, None] * plan


def _spikes(
    reaches: list[Reach],
    start_ms: npt.NDArray[np.int64],
    gap_ms: npt.NDArray[np.int64],
    tuning: Tuning,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Unit and millisecond of every spike."""
    units, moments = [], []
    for first in range(0, len(reaches), TRIALS_AT_ONCE):
        part = slice(first, first + TRIALS_AT_ONCE)
        lengths = [len(r.velocity) + g for r, g in zip(reaches[part], gap_ms[part], strict=True)]
        drive = np.full((len(lengths), max(lengths), len(tuning.log_rate)), -np.inf, np.float32)
        for row, (reach, length) in enumerate(zip(reaches[part], lengths, strict=True)):
            drive[row, :length] = log_rates(reach, tuning, length)
        trial, ms, unit = np.nonzero(_poisson_with_history(drive, rng))
        units.append(unit)
        moments.append(start_ms[part][trial] + ms)
    return np.concatenate(units), np.concatenate(moments)


def _poisson_with_history(
    log_rate: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Spikes (trials, ms, units), at most one a millisecond, given log rates in Hz."""
    n_trials, n_ms, n_units = log_rate.shape
    spikes = np.zeros(log_rate.shape, np.bool_)
    refractory = np.zeros((n_trials, n_units), np.float32)
    rebound = np.zeros_like(refractory)
    for ms in range(n_ms):
        history = 0.4 * rebound - 6.0 * refractory
        expected = np.exp(log_rate[:, ms] + history) * MS
        fired = rng.random((n_trials, n_units), np.float32) < -np.expm1(-expected)
        spikes[:, ms] = fired
        refractory = refractory * np.exp(-1 / 3) + fired
        rebound = rebound * np.exp(-1 / 15) + fired
    return spikes
