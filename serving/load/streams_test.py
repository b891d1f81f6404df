import math

import numpy as np
import pytest

from cortex.time_grid import TimeGrid
from serving.load.random_events import RandomSteps
from serving.load.streams import Schedule, StreamsResult, run_streams
from serving.load.virtual_engine import VirtualEngine

GRID = TimeGrid(window_steps=8)


def _run(
    engine: VirtualEngine, streams: int = 40, tick_s: float = 1e-3, give_up: bool = False
) -> StreamsResult:
    return run_streams(
        engine,
        RandomSteps(GRID, n_units=8, events=1),
        streams=streams,
        step_s=0.020,
        duration_s=1.0,
        warm_up_s=0.1,
        tick_s=tick_s,
        give_up=give_up,
    )


def test_steps_are_due_in_the_order_of_phases() -> None:
    schedule = Schedule(np.array([0.001, 0.004, 0.004]), 0.010)
    times = [0.0, 0.001, 0.0035, 0.004, 0.0105, 0.0115]
    assert [schedule.due_by(time) for time in times] == [0, 1, 1, 3, 3, 4]
    place, step, due = schedule.rows(2, 5)
    assert place.tolist() == [2, 0, 1]
    assert step.tolist() == [0, 1, 1]
    assert due == pytest.approx([0.004, 0.011, 0.014])


def test_every_stream_takes_every_step_once_in_order() -> None:
    engine = VirtualEngine(service_s=0.0)
    seen = _run(engine)
    assert (seen.steps, seen.missed, seen.restarted) == (2000, 0, 0)
    assert seen.seconds == pytest.approx(1.0)
    streams = np.concatenate([stream for stream, _ in engine.frames])
    steps = np.concatenate([step for _, step in engine.frames])
    for stream in range(7000, 7040):
        assert steps[streams == stream].tolist() == list(range(55))
    assert not engine.open_streams


def test_latency_counts_from_when_a_step_is_due_and_not_from_its_tick() -> None:
    seen = _run(VirtualEngine(service_s=0.003), streams=400, tick_s=4e-3)
    # A step waits for up to a tick of 4 ms, and then 3 ms.
    assert seen.latency.p50_ms == pytest.approx(5, rel=0.1)
    assert seen.latency.p99_ms == pytest.approx(7, rel=0.03)
    assert seen.lag.p99_ms == pytest.approx(4, rel=0.03)
    assert seen.held(p99_ms=7.5)
    assert not seen.held(p99_ms=6.5)


def test_a_run_that_gives_up_ends_soon_after_the_first_step_missed() -> None:
    engine = VirtualEngine(service_s=0.0, fail_every=400)
    seen = _run(engine, give_up=True)
    assert seen.missed == 1
    assert seen.steps == pytest.approx(200, abs=10)  # The first 200 only warm up.
    assert not engine.open_streams


def test_a_step_answered_after_the_next_is_due_is_missed() -> None:
    assert _run(VirtualEngine(service_s=0.015), tick_s=0.020).missed == pytest.approx(
        2000 * 0.75, rel=0.15
    )


def test_failed_and_refused_steps_are_missed() -> None:
    failing = _run(VirtualEngine(service_s=0.0, fail_every=100))
    assert failing.missed == 20
    assert not failing.held(p99_ms=5)
    # One job is served at a time, for two ticks; every other is refused.
    refusing = _run(VirtualEngine(service_s=0.0015, max_queue=1), streams=400)
    assert refusing.missed == pytest.approx(refusing.steps / 2, rel=0.1)
    assert refusing.latency.p99_ms == math.inf
