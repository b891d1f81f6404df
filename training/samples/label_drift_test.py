"""From a file to what a model learns from: no label drifts.

A file is written with spikes that are a copy, LEAD bins ahead, of the velocity, and with a long gap
between its trials. Whatever is cut from it must show that copy at LEAD bins, and at no other.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cortex.data.nwb_reader import read_nwb
from cortex.data.nwb_writer import write_nwb
from cortex.data.recording import Recording
from cortex.events import IntArray
from cortex.session import Session
from cortex.time_grid import TimeGrid
from training.samples.alignment import aligned
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors
from training.samples.windows import WindowConfig, Windows, event_windows, sliding_windows

GRID = TimeGrid()
BIN_MS, LEAD = 5, 4
# In milliseconds: trials that do not begin on a step, with a gap of 17 minutes and one of 35 ms.
TRIALS_MS = ((115, 905), (1_000_340, 1_001_100), (1_001_135, 1_001_895))


def _codes(bins: IntArray) -> IntArray:
    """How fast the hand is in a bin, in steps of 10 mm/s: 0 to 4, without a period."""
    return ((bins * 2654435761) >> 7) % 5


def _recording() -> Recording:
    trial_ms = [np.arange(*span) for span in TRIALS_MS]
    ms = np.concatenate(trial_ms)
    code = _codes(ms // BIN_MS)
    # In every bin of a trial as many spikes as the code LEAD bins later says, on whole ms + 0.5.
    bins = np.concatenate([np.arange(a // BIN_MS, b // BIN_MS) for a, b in TRIALS_MS])
    ahead = _codes(bins + LEAD)
    spike_ms = np.concatenate([b * BIN_MS + np.arange(n) for b, n in zip(bins, ahead, strict=True)])
    return Recording(
        session_id="planted",
        subject="nobody",
        description="planted",
        unit_ids=(1011, 2861),
        spike_times=((spike_ms + 0.5) / 1e3, np.array([])),
        obs_intervals=np.array(TRIALS_MS) / 1e3,
        sample_times=ms / 1e3,
        hand_pos=np.zeros((len(ms), 2)),
        hand_vel=np.stack([code, -code], 1) * np.float64(10),
        trial_start=np.array([a for a, _ in TRIALS_MS]) / 1e3,
        trial_stop=np.array([b for _, b in TRIALS_MS]) / 1e3,
        trial_columns={"move_onset_time": np.array([a + 200 for a, _ in TRIALS_MS]) / 1e3},
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tmp_path_factory.mktemp("planted") / "planted.nwb"
    write_nwb(_recording(), path)
    return read_nwb(path, GRID)


def _from_trials(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of unit 0 and velocity in every bin, -1 and NaN where there is none, per trial."""
    samples = trial_samples(session, range(3))
    spikes = np.full((3, 200), -1)
    velocity = np.full((3, 200, 2), np.nan)
    for row, sample in enumerate(samples):
        n_bins = sample.labelled.size
        spikes[row, :n_bins] = sample.events.to_counts(n_bins, 2)[:, 0]
        labelled = sample.labelled.flatten()
        velocity[row, :n_bins][labelled] = sample.velocity.reshape(-1, 2)[labelled]
    return spikes, velocity


def _from_batches(session: Session) -> tuple[np.ndarray, np.ndarray]:
    samples = trial_samples(session, range(3))
    tensors = TrialTensors(samples, bins_per_step=GRID.bins_per_step, crop_steps=99, device="cpu")
    batch = tensors.batch(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    row, step, slot = batch.events.mask_BSE.nonzero(as_tuple=True)
    spikes = np.full((3, tensors.n_steps, GRID.bins_per_step), 0)
    phase = batch.events.phase_BSE[row, step, slot]
    np.add.at(spikes, (row, step, phase), batch.events.value_BSE[row, step, slot])
    velocity = np.where(batch.labelled_BSP[..., None], batch.velocity_BSP2, np.nan)
    return spikes.reshape(3, -1), velocity.reshape(3, -1, 2)


def _from_alignment(session: Session) -> tuple[np.ndarray, np.ndarray]:
    found = aligned(session, before_s=0.2, after_s=0.3, lag_s=0.0)
    assert found.left_out == 0
    return found.spikes[:, :, 0], found.velocity


@pytest.mark.parametrize("cut", [_from_trials, _from_batches, _from_alignment])
def test_labels_are_the_spikes_of_lead_bins_before(
    session: Session, cut: Callable[[Session], tuple[np.ndarray, np.ndarray]]
) -> None:
    spikes, velocity = cut(session)
    for shift in (LEAD - 1, LEAD, LEAD + 1):
        for trial in range(3):
            now, later = spikes[trial, :-shift], velocity[trial, shift:]
            known = ~np.isnan(later[:, 0]) & (now >= 0)
            assert known.sum() > 90
            same = np.abs(later[known] - 10.0 * np.stack([now, -now], 1)[known]).max(1) < 1e-4
            # Any other shift agrees only where codes happen to repeat, one time in five.
            assert same.all() if shift == LEAD else same.mean() < 0.5


@pytest.mark.parametrize(
    ("cut", "label_bin"),
    [
        (lambda s: sliding_windows(s, WindowConfig(length_s=0.1, stride_s=0.005)), 19),
        (lambda s: sliding_windows(s, WindowConfig(length_s=0.1, cross_trials=True)), 19),
        (event_windows, 20),
    ],
    ids=["sliding", "sliding across", "event"],
)
def test_windows_are_labelled_lead_bins_after_their_spikes(
    session: Session, cut: Callable[[Session], Windows], label_bin: int
) -> None:
    windows = cut(session)
    assert windows.label_bin == label_bin
    assert set(windows.trial.tolist()) == {0, 1, 2}
    for shift in (LEAD - 1, LEAD, LEAD + 1):
        same = []
        for i in range(len(windows)):
            spikes = windows.events(i).to_counts(windows.n_bins, 2)[label_bin - shift, 0]
            begins = int(session.trials.start_bin[windows.trial[i]])
            # Before its trial nothing was observed, so nothing can be said.
            if windows.first_bin[i] + label_bin - shift >= begins:
                same.append(abs(windows.velocity[i] - [10.0 * spikes, -10.0 * spikes]).max() < 1e-4)
        assert all(same) if shift == LEAD else np.mean(same) < 0.67
