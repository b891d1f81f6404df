import math

import numpy as np

from serving.load.latency import Latency


def test_percentiles_are_nearest_ranks() -> None:
    seconds = np.arange(200, 0, -1) / 1e3
    assert Latency.of(seconds) == Latency(p50_ms=100, p95_ms=190, p99_ms=198)


def test_up_to_one_in_a_hundred_may_be_unanswered() -> None:
    seconds = np.full(200, 0.002)
    seconds[:2] = math.inf
    assert Latency.of(seconds).p99_ms == 2
    seconds[2] = math.inf
    assert Latency.of(seconds) == Latency(p50_ms=2, p95_ms=2, p99_ms=math.inf)


def test_nothing_measured_has_no_percentile() -> None:
    assert math.isnan(Latency.of(np.empty(0)).p99_ms)
