"""Greenlets wait for the engine, and metrics say what it did."""

from collections.abc import Iterator
from contextlib import nullcontext

import gevent
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from cortex.errors import InputError
from cortex.events import Events
from serving.engine.answers import Flag
from serving.engine.engine import State
from serving.engine.errors import NotReadyError
from serving.engine.fake_model import FakeModel
from serving.engine.faults import Faults
from serving.engine.settings import EngineSettings
from serving.engine.stalled import Freshness
from serving.http.bridge import Bridge
from serving.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def bridge(metrics: Metrics) -> Iterator[Bridge]:
    bridge = Bridge(
        lambda: FakeModel(digest="a", slow=True),
        settings=EngineSettings(),
        scope=nullcontext,
        faults=Faults(),
        on_death=lambda error: None,
        metrics=metrics,
    )
    bridge.start()
    while bridge.state is State.WARMING:
        gevent.sleep(0.001)
    yield bridge
    assert bridge.stop(10.0)


def step(value: int) -> Events:
    zero = np.zeros(1, np.int64)
    return Events(unit=zero, time_bin=zero, value=zero + value)


def test_a_swap_is_waited_for_and_counted(bridge: Bridge, metrics: Metrics) -> None:
    stream = bridge.open_stream()
    assert bridge.step(stream, 0, step(1), 5.0).digest == "a"
    card = bridge.swap(lambda: FakeModel(digest="b", slow=True))
    assert card.digest == bridge.card.digest == "b"
    answer = bridge.step(stream, 1, step(1), 5.0)
    assert (answer.digest, answer.flags) == ("b", Flag.RESTARTED)

    def build() -> FakeModel:
        raise InputError("no such model")

    with pytest.raises(InputError, match="no such model"):
        bridge.swap(build)
    text = metrics.text().decode()
    assert 'cortex_swaps_total{outcome="swapped"} 1.0' in text
    assert 'cortex_swaps_total{outcome="refused"} 1.0' in text
    assert "cortex_streams_restarted_total 1.0" in text
    assert "cortex_batches_in_flight 0.0" in text


def test_reads_of_the_latest_velocity_are_counted(bridge: Bridge, metrics: Metrics) -> None:
    stream = bridge.open_stream()
    assert bridge.latest(stream).state is Freshness.STALE
    bridge.close_stream(stream)
    with pytest.raises(InputError, match="closed"):
        bridge.latest(stream)
    assert 'cortex_latest_total{state="stale"} 1.0' in metrics.text().decode()


def test_steps_behind_are_counted(bridge: Bridge, metrics: Metrics) -> None:
    stream = bridge.open_stream()
    bridge.step(stream, 3, step(1), 5.0)
    with pytest.raises(InputError, match="behind"):
        bridge.step(stream, 1, step(1), 5.0)
    assert "cortex_steps_behind_total 1.0" in metrics.text().decode()


def test_a_greenlet_that_is_killed_leaves_nothing_waiting(bridge: Bridge) -> None:
    greenlets = [gevent.spawn(bridge.decode, step(1), 5.0) for _ in range(50)]
    gevent.sleep(0)
    gevent.killall(greenlets[::2])
    assert all(each.get(timeout=10).velocity == (1.0, 1.0) for each in greenlets[1::2])


def test_a_second_swap_is_refused_while_one_is_under_way(bridge: Bridge) -> None:
    def build() -> FakeModel:
        return FakeModel(digest="b", slow=True)

    first = gevent.spawn(bridge.swap, build)
    gevent.sleep(0)
    with pytest.raises(NotReadyError, match="another swap"):
        bridge.swap(build)
    assert first.get(timeout=10).digest == "b"
