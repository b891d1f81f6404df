from itertools import repeat

import pytest

from cortex.events import Events
from serving.load.closed_loop import closed_loop
from serving.load.virtual_engine import VirtualEngine

WINDOWS = repeat(Events.empty())


def test_each_caller_waits_for_all_others() -> None:
    engine = VirtualEngine(service_s=0.002)
    seen = closed_loop(engine, WINDOWS, callers=5, duration_s=2.0, warm_up_s=0.1)
    assert seen.windows_per_s == pytest.approx(500, rel=0.01)
    assert seen.latency.p50_ms == pytest.approx(10)
    assert seen.latency.p99_ms == pytest.approx(10)
    assert seen.unanswered == 0
    # The first five did not wait so long, and were not counted.
    assert seen.answered == pytest.approx(1000, abs=1)


def test_a_failed_window_is_not_counted_as_answered_and_its_caller_goes_on() -> None:
    engine = VirtualEngine(service_s=0.001, fail_every=4)
    seen = closed_loop(engine, WINDOWS, callers=1, duration_s=1.0)
    assert seen.answered == pytest.approx(750, abs=1)
    assert seen.unanswered == pytest.approx(250, abs=1)


def test_callers_that_are_refused_ask_again() -> None:
    engine = VirtualEngine(service_s=0.010, max_queue=1)
    seen = closed_loop(engine, WINDOWS, callers=2, duration_s=1.0)
    assert seen.answered == pytest.approx(100, abs=2)
    # The one that is not served asks each millisecond.
    assert seen.unanswered == pytest.approx(1000, rel=0.15)


def test_nobody_waits_afterwards() -> None:
    engine = VirtualEngine(service_s=0.5)
    closed_loop(engine, WINDOWS, callers=3, duration_s=0.1, warm_up_s=0.0)
    assert engine.now == 1.5
