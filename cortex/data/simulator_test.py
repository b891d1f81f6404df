"""The simulator: reproducible, and with the statistics that it claims."""

from pathlib import Path

import numpy as np
import pytest
from pynwb import validate

from cortex.data.nwb_reader import read_nwb
from cortex.data.nwb_writer import write_nwb
from cortex.data.recording import Recording
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.errors import InputError
from cortex.time_grid import TimeGrid


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(SimulatorConfig(trials=40, units=120, seed=3))


def test_a_seed_fixes_everything(tmp_path: Path) -> None:
    config = SimulatorConfig(trials=3, units=10, seed=1)
    sessions = []
    for name in ("a.nwb", "b.nwb"):
        write_nwb(simulate(config), tmp_path / name)
        sessions.append(read_nwb(tmp_path / name, TimeGrid()))
    first, second = sessions
    assert all(
        np.array_equal(a, b)
        for a, b in zip(vars(first.events).values(), vars(second.events).values(), strict=True)
    )
    assert np.array_equal(first.behavior.velocity, second.behavior.velocity)
    other = simulate(SimulatorConfig(trials=3, units=10, seed=2))
    assert len(other.sample_times) != len(simulate(config).sample_times)


def test_rates_are_those_of_the_real_trials(recording: Recording) -> None:
    seconds = recording.obs_intervals[-1, 1]
    rates = np.array([len(times) for times in recording.spike_times]) / seconds
    logs = np.log(rates[rates > 0])
    assert np.mean(rates == 0) == pytest.approx(0.15, abs=0.02)
    assert logs.mean() == pytest.approx(0.62, abs=0.3)
    assert logs.std() == pytest.approx(1.11, abs=0.25)


def test_gaps_hold_spikes_but_no_samples(recording: Recording) -> None:
    gaps = list(zip(recording.trial_stop[:-1], recording.trial_start[1:], strict=True))
    spikes = np.concatenate(recording.spike_times)
    for stop, start in gaps:
        middle = (stop + 0.01, start - 0.01)
        assert not (
            (recording.sample_times > middle[0]) & (recording.sample_times < middle[1])
        ).any()
        assert ((spikes > middle[0]) & (spikes < middle[1])).any()


def test_units_are_refractory(recording: Recording) -> None:
    intervals = np.concatenate([np.diff(times) for times in recording.spike_times])
    assert (intervals < 2.5e-3).mean() < 0.01
    assert (intervals > 0).all()


def test_spikes_lead_the_hand(recording: Recording) -> None:
    """Population activity is best explained by the speed some 100 ms later."""
    n_ms = int(recording.obs_intervals[-1, 1] * 1e3) + 300
    spikes = np.bincount(
        np.round(np.concatenate(recording.spike_times) * 1e3).astype(int), minlength=n_ms
    )
    speed = np.zeros(n_ms)
    at = np.round(recording.sample_times * 1e3).astype(int)
    speed[at] = np.hypot(*recording.hand_vel.T)
    lags = np.arange(-200, 301, 20)
    fit = [
        np.corrcoef(spikes[200 : n_ms - 300], speed[200 + lag : n_ms - 300 + lag])[0, 1]
        for lag in lags
    ]
    assert 40 <= lags[int(np.argmax(fit))] <= 160


def test_files_are_valid_nwb(tmp_path: Path) -> None:
    write_nwb(simulate(SimulatorConfig(trials=2, units=3)), tmp_path / "s.nwb")
    assert not validate(path=str(tmp_path / "s.nwb"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", -1), ("log_rate_sd", -1.0), ("tuning", float("nan")), ("silent_share", 1.5)],
)
def test_impossible_values_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} is {value}"):
        SimulatorConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["trials", "units"])
def test_nothing_to_simulate_is_refused(field: str) -> None:
    with pytest.raises(InputError, match=f"{field} is 0"):
        SimulatorConfig(**{field: 0})
