"""The loads on a real engine, and what it leaves behind."""

import math
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from serving.engine.engine import State
from serving.engine.errors import ModelError
from serving.engine.fake_model import FakeModel
from serving.engine.faults import Faults
from serving.engine.settings import EngineSettings
from serving.load.closed_loop import closed_loop
from serving.load.open_loop import open_loop
from serving.load.random_events import RandomSteps, RandomWindows
from serving.load.recovery import measure_recovery
from serving.load.running_engine import RunningEngine
from serving.load.streams import run_streams

SETTINGS = EngineSettings(max_batch=4, max_step_batch=16)


@pytest.fixture
def target() -> Iterator[RunningEngine]:
    target = RunningEngine(
        lambda: FakeModel(slots=16), settings=SETTINGS, scope=nullcontext, faults=Faults()
    )
    target.until_ready()
    yield target
    target.close()
    assert target.engine.state is State.STOPPED
    assert target.engine.pending == 0


def _windows() -> RandomWindows:
    return RandomWindows(FakeModel().grid, n_units=8, events=16)


def test_callers_are_answered(target: RunningEngine) -> None:
    seen = closed_loop(target, _windows(), callers=8, duration_s=0.3, warm_up_s=0.05)
    assert seen.answered > 8
    assert seen.unanswered == 0
    assert 0 < seen.latency.p50_ms <= seen.latency.p99_ms
    assert target.engine.pending == 0


def test_arrivals_are_answered(target: RunningEngine) -> None:
    seen = open_loop(target, _windows(), rate=200, duration_s=0.5, warm_up_s=0.05, deadline_s=10.0)
    assert seen.due > 50
    assert (seen.refused, seen.failed) == (0, 0)
    assert target.engine.pending == 0


def test_streams_are_answered_and_closed(target: RunningEngine) -> None:
    events = RandomSteps(FakeModel().grid, n_units=8, events=2)
    # Twice, as there is room for the second only where the first were closed.
    for _ in range(2):
        seen = run_streams(
            target, events, streams=16, step_s=0.5, duration_s=0.5, warm_up_s=0.0, tick_s=0.01
        )
        assert (seen.steps, seen.restarted) == (16, 0)
        assert 0 < seen.latency.p50_ms < math.inf


def test_more_streams_than_slots_say_so(target: RunningEngine) -> None:
    events = RandomSteps(FakeModel().grid, n_units=8, events=2)
    with pytest.raises(Exception, match="17"):
        run_streams(target, events, streams=17, step_s=0.02, duration_s=0.1)


def test_an_engine_that_does_not_load_says_why() -> None:
    def build() -> FakeModel:
        raise ModelError("no such model")

    target = RunningEngine(build, settings=SETTINGS, scope=nullcontext, faults=Faults())
    with pytest.raises(ModelError, match="no such model"):
        target.until_ready()


def test_recovery_takes_a_new_model_after_a_fatal_fault_only() -> None:
    built: list[FakeModel] = []

    def build() -> FakeModel:
        built.append(FakeModel())
        return built[-1]

    seen = measure_recovery(
        build, _windows(), settings=SETTINGS, scope=nullcontext, faults=Faults()
    )
    assert len(built) == 2
    assert seen.batch_fault_s > 0
    assert seen.fatal_fault_s > 0
