import math
from itertools import repeat

import numpy as np
import pytest

from cortex.events import Events
from serving.load.open_loop import OpenLoopResult, open_loop
from serving.load.virtual_engine import VirtualEngine

WINDOWS = repeat(Events.empty())


def _run(engine: VirtualEngine, rate: float) -> OpenLoopResult:
    return open_loop(engine, WINDOWS, rate=rate, duration_s=20.0, deadline_s=0.2)


def test_arrivals_come_at_random_at_the_rate() -> None:
    engine = VirtualEngine(service_s=0.0)
    seen = _run(engine, rate=200)
    assert seen.due == pytest.approx(4000, rel=0.05)
    # Deadlines count from when a window is due, and tell when that was.
    gaps = np.diff(np.array(engine.deadlines))
    assert gaps.mean() == pytest.approx(0.005, rel=0.05)
    assert gaps.std() == pytest.approx(0.005, rel=0.1)
    assert seen.latency.p99_ms == pytest.approx(0, abs=1e-6)


def test_the_wait_is_that_of_the_theory() -> None:
    # Pollaczek and Khinchine: at load u, as many arrive without having to wait as 1 - u says.
    seen = _run(VirtualEngine(service_s=0.004), rate=100)
    assert seen.latency.p50_ms == pytest.approx(4, abs=0.01)
    busy = _run(VirtualEngine(service_s=0.008), rate=100)
    assert busy.latency.p50_ms > 12
    assert (seen.refused, seen.failed) == (0, 0)


class _Stalls(VirtualEngine):
    """Its host's thread is away for a second from the fifth on."""

    def wait(self, until: float) -> None:
        super().wait(until)
        if 5 <= self.now < 6:
            self.now = 6.0


def test_a_stall_is_counted_for_all_that_were_due_in_it() -> None:
    seen = _run(_Stalls(service_s=0.0), rate=200)
    # A 20th of all were due in it, of whom a fifth waited for more than 0.8 seconds.
    assert seen.latency.p99_ms == pytest.approx(800, rel=0.1)
    assert seen.latency.p50_ms == pytest.approx(0, abs=1e-6)


def test_refused_and_failed_windows_count_as_endlessly_late() -> None:
    refusing = _run(VirtualEngine(service_s=0.010, max_queue=3), rate=200)
    assert refusing.refused == pytest.approx(refusing.due / 2, rel=0.1)
    assert refusing.failed == 0
    assert refusing.latency.p99_ms == math.inf
    failing = _run(VirtualEngine(service_s=0.0, fail_every=10), rate=200)
    assert failing.failed == pytest.approx(failing.due / 10, abs=1)
    assert (failing.refused, failing.latency.p99_ms) == (0, math.inf)
