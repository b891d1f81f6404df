"""Pictures: written, of the size of what they show, and showing it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from cortex.session import FloatArray, Session
from training.evaluation.drawing import (
    DECODED,
    RECORDED,
    draw_paths,
    draw_velocity,
    step_trace,
    target_trace,
)
from training.samples.session_for_tests import make_session
from training.samples.targets import trial_targets


def _pixels(image: npt.NDArray[np.float32], color: str) -> int:
    return int((np.abs(image[:, :, :3] - to_rgb(color)).max(2) < 0.02).sum())


def _decoded(session: Session, trials: list[int]) -> list[FloatArray]:
    return [0.5 * trial_targets(session, trial)[1] for trial in trials]


def test_traces_lie_in_the_middle_of_each_steps_last_bin() -> None:
    session = make_session()
    trace = step_trace(session, np.zeros((3, 2), np.float32))
    np.testing.assert_allclose(trace.time_s, [0.0175, 0.0375, 0.0575], rtol=1e-5)
    some = target_trace(session, 0, np.zeros((15, 2), np.float32))
    np.testing.assert_allclose(some.time_s[[0, 14]], [0.0175, 0.2975], rtol=1e-5)


@pytest.mark.parametrize("n_trials", [1, 3, 9])
def test_pictures_show_recorded_and_decoded(tmp_path: Path, n_trials: int) -> None:
    session = make_session(12)
    trials = list(range(n_trials))
    decoded = _decoded(session, trials)
    traces = [target_trace(session, t, v) for t, v in zip(trials, decoded, strict=True)]
    other = [target_trace(session, t, -v) for t, v in zip(trials, decoded, strict=True)]
    draw_velocity(session, trials, {"a": traces, "b": other}, tmp_path / "v.png", title="waves")
    opposite = [-v for v in decoded]
    draw_paths(session, trials, {"a": decoded, "b": opposite}, tmp_path / "p.png", title="waves")
    for name in ("v.png", "p.png"):
        image = imread(tmp_path / name)
        for style in (RECORDED, *DECODED):
            assert _pixels(image, str(style["color"])) > 40, (name, style)


def test_one_decoder_is_enough(tmp_path: Path) -> None:
    session = make_session()
    traces = [step_trace(session, np.full((15, 2), 30.0, np.float32))]
    draw_velocity(session, [2], {"decoded": traces}, tmp_path / "one.png", title="waves")
    image = imread(tmp_path / "one.png")
    assert _pixels(image, str(DECODED[0]["color"])) > 100
    assert _pixels(image, str(DECODED[1]["color"])) == 0
