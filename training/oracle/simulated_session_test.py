"""The truth of a simulated file, the oracle on it, and the files that it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cortex.data.nwb_writer import write_nwb
from cortex.data.open_session import open_session
from cortex.data.recording import Recording
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.errors import InputError
from cortex.session import Session
from training.evaluation.metrics import velocity_r2
from training.oracle.estimate import Estimate, estimate, estimate_all
from training.oracle.reach_posterior import PosteriorConfig
from training.oracle.simulated_session import SimulatedSession
from training.rivals.wiener import WienerConfig, WienerFilter
from training.samples.splits import split_trials

CONFIG = SimulatorConfig(trials=60, units=60, seed=2, log_rate_mean=1.5, heldout_units=3)
PARTICLES = PosteriorConfig(particles=200)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(CONFIG)


@pytest.fixture(scope="module")
def path(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "s.nwb"
    write_nwb(recording, path)
    return path


@pytest.fixture(scope="module")
def session(path: Path) -> Session:
    return open_session(path)


@pytest.fixture(scope="module")
def truth(path: Path, session: Session) -> SimulatedSession:
    return SimulatedSession(path, session)


def test_a_trial_has_the_sessions_spikes_of_held_in_units(
    session: Session, truth: SimulatedSession
) -> None:
    for index in (0, 17):
        start, stop = session.trials.start_bin[index], session.trials.stop_bin[index]
        trial = truth.trial(index)
        inside = session.events.between(start + 1, stop)
        # The trial begins and ends within a bin of its first and last millisecond.
        assert abs(len(trial.observed.spike_ms) - inside.value.sum()) < 10
        assert trial.observed.silence.shape[1] <= CONFIG.units - CONFIG.heldout_units
        assert len(trial.step_stop_ms) == len(trial.velocity)
        assert (np.diff(trial.step_stop_ms) == 20).all()


def test_the_oracle_is_above_the_wiener_filter(session: Session, truth: SimulatedSession) -> None:
    train, test = split_trials(len(session.trials), 0)
    trials = [truth.trial(index) for index in test[:8]]
    estimates = list(estimate_all(trials, PARTICLES, "cpu", seed=0))
    true = np.concatenate([trial.velocity for trial in trials])
    wiener = WienerFilter(WienerConfig()).fit(session, train).predict(session, test[:8])
    r2_wiener = velocity_r2(true, np.concatenate(wiener))
    causal, smoothed = (
        velocity_r2(true, np.concatenate([getattr(each, kind) for each in estimates]))
        for kind in ("causal", "smoothed")
    )
    assert r2_wiener > 0.3
    assert causal > r2_wiener + 0.1
    assert smoothed > causal


def test_processes_change_nothing(truth: SimulatedSession) -> None:
    trials = [truth.trial(index) for index in (3, 5)]
    alone: Estimate = estimate(trials[1], PARTICLES, "cpu", seed=0)
    _, beside = estimate_all(trials, PARTICLES, "cpu", seed=0, processes=2)
    np.testing.assert_allclose(alone.causal, beside.causal, atol=1e-3)
    np.testing.assert_allclose(alone.smoothed, beside.smoothed, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: {"spike_times": (r.spike_times[1], r.spike_times[0], *r.spike_times[2:])},
            "of its spikes",
        ),
        (lambda r: {"spike_times": (r.spike_times[0][::2], *r.spike_times[1:])}, "of its spikes"),
        (lambda r: {"hand_vel": r.hand_vel * 1.01}, "velocity in trial 4 is not what"),
        (lambda r: {"heldout": (False,) * CONFIG.units}, "60 units and 60 trials, expected"),
        (lambda r: {"notes": ""}, "not a simulated session"),
    ],
)
def test_altered_files_are_refused(
    recording: Recording, tmp_path: Path, change: object, message: str
) -> None:
    altered = tmp_path / "altered.nwb"
    assert callable(change)
    write_nwb(replace(recording, **change(recording)), altered)
    with pytest.raises(InputError, match=message):
        SimulatedSession(altered, open_session(altered)).trial(4)
