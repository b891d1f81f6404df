"""Trials decoded step by step equal trials decoded at once."""

from dataclasses import replace

import numpy as np
import pytest

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.session import Session
from training.evaluation import streamed_decoding
from training.evaluation.checkpoint_for_tests import make_checkpoint
from training.evaluation.offline_decoding import decode_trials
from training.evaluation.streamed_decoding import stream_trials
from training.samples.session_for_tests import make_session


@pytest.fixture(scope="module")
def session() -> Session:
    """Trials of unequal length: one ends within a step, one is a single step."""
    session = make_session(12)
    stop = session.trials.stop_bin.copy()
    stop[[1, 4]] -= [7, 56]
    return replace(session, trials=replace(session.trials, stop_bin=stop))


@pytest.fixture(scope="module")
def checkpoint(session: Session) -> Checkpoint:
    return make_checkpoint(session, range(6))


@pytest.mark.parametrize("at_once", [64, 3])
def test_streamed_equals_offline(
    session: Session, checkpoint: Checkpoint, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_decoding, "STREAMS_AT_ONCE", at_once)
    trials = [4, 1, 9, 0, 11, 2, 7]
    offline = decode_trials(checkpoint, session, trials)
    streamed = stream_trials(checkpoint, session, trials)
    assert [len(v) for v in streamed] == [len(v) for v in offline] == [1, 13, 15, 15, 15, 15, 15]
    largest = np.abs(np.concatenate(offline)).max()
    assert largest > 1
    for one, other in zip(streamed, offline, strict=True):
        assert np.abs(one - other).max() < 1e-5 * largest


def test_no_trial_decodes_to_nothing(session: Session, checkpoint: Checkpoint) -> None:
    assert stream_trials(checkpoint, session, []) == []


def test_another_grid_is_refused(session: Session, checkpoint: Checkpoint) -> None:
    other = replace(session, grid=replace(session.grid, bin_us=10_000))
    with pytest.raises(InputError, match="time grid is"):
        stream_trials(checkpoint, other, [0])


def test_a_device_that_is_not_there_is_refused(session: Session, checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="'nowhere' cannot be used"):
        stream_trials(checkpoint, session, [0], device="nowhere")
