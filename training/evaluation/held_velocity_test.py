"""Between steps the newest answer stands, and none rests on a later spike."""

from collections.abc import Sequence

import numpy as np

from cortex.session import FloatArray, Session
from training.evaluation.held_velocity import first_answer, held_velocity
from training.evaluation.reaches_for_tests import make_reaches
from training.samples.targets import trial_targets


def _counting(session: Session, trials: Sequence[int]) -> list[FloatArray]:
    """Answers with (trial, step), and with (trial, -1) where the trial has no such step."""
    return [
        np.stack([np.full(len(step), t), step], 1).astype(np.float32)
        for t in trials
        for step in [trial_targets(session, t)[0]]
    ]


def test_holds_the_newest_step_that_has_ended() -> None:
    session = make_reaches(4)
    start = session.trials.start_bin
    assert first_answer(session).tolist() == (start + 3).tolist()
    bins = start[[2, 0]][:, None] + np.array([[3, 4, 6, 7, 8], [3, 10, 11, 100, 239]])
    held = held_velocity(_counting, session, np.array([2, 0]), bins)
    assert held[:, :, 1].tolist() == [[0, 0, 0, 1, 1], [0, 1, 2, 24, 59]]
    assert (held[:, :, 0] == [[0], [1]]).all()


def test_streams_run_on_past_the_end_of_their_trial() -> None:
    session = make_reaches(4)
    trial = np.array([0, 1])
    # The first one runs on into the second, whose steps begin at another phase of the session's.
    assert (session.trials.start_bin[1] - session.trials.start_bin[0]) % 4
    bins = session.trials.start_bin[trial][:, None] + np.array([[3, 299], [3, 243]])
    held = held_velocity(_counting, session, trial, bins)
    assert held.tolist() == [[[0, 0], [0, 74]], [[1, 0], [1, 60]]]


def test_no_trial_is_no_velocity() -> None:
    none = np.empty(0, np.int64)
    held = held_velocity(_counting, make_reaches(2), none, none.reshape(0, 5))
    assert held.shape == (0, 5, 2)
