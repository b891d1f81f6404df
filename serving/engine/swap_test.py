"""Another model takes over while the first serves, or does not and nobody notices."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from cortex.errors import InputError
from cortex.ragged_events import RaggedEvents
from serving.engine.answers import Answer, Flag
from serving.engine.engine import State
from serving.engine.engine_bench import EngineBench
from serving.engine.errors import ModelError, NotReadyError
from serving.engine.fake_model import FakeModel, FakePending
from serving.engine.model import ModelCard, Velocity
from serving.engine.pipeline_driver import one_event


def bench_with(digest: str, *, slow: bool = True) -> EngineBench:
    return EngineBench(lambda: FakeModel(digest=digest, slow=slow)).ready()


@pytest.mark.parametrize("slow", [False, True])
def test_a_swap_under_load_fails_nobody(slow: bool) -> None:
    bench = bench_with("a", slow=slow)
    bench.engine.submit_open(bench.put("open"))
    (stream,) = bench.outcome("open").tolist()  # type: ignore[union-attr]
    keys = 0
    for number in range(8):
        target = "ba"[number % 2]
        bench.engine.swap(
            lambda target=target: FakeModel(digest=target, slow=slow),  # type: ignore[misc]
            bench.put("swap"),
        )
        while "swap" not in bench.got or keys % 50:
            if keys % 10 == 0:
                bench.engine.submit_step(
                    stream, keys // 10, one_event(1), deadline_s=9.0, on_done=bench.put(keys)
                )
            else:
                bench.window(keys)
            keys += 1
            bench.until(lambda: bench.engine.pending < 20)
        outcome = bench.outcome("swap")
        assert isinstance(outcome, ModelCard) and outcome.digest == target
        assert bench.engine.card == outcome
        bench.window("after")
        after = bench.outcome("after")
        assert isinstance(after, Answer) and after.digest == target
    bench.until(lambda: bench.engine.pending == 0)
    answers = [bench.got[key] for key in range(keys)]
    assert all(isinstance(answer, Answer) for answer in answers)
    # The stream ran on, or said that it began again: with each new model once.
    context, restarts = 0, 0
    for answer in answers[::10]:
        assert isinstance(answer, Answer)
        again = Flag.RESTARTED in answer.flags
        context = 1 if again else min(context + 1, 8)
        assert answer.context_steps == context
        restarts += again
    assert restarts <= 8
    bench.engine.drain()
    bench.until(lambda: bench.engine.state is State.STOPPED)


class Unsound(FakeModel):
    """Answers a window otherwise in company."""

    def launch_windows(self, events: RaggedEvents) -> FakePending:
        pending = super().launch_windows(events)
        return pending if len(events) == 1 else Doubled(self, pending)


class Doubled(FakePending):
    """Twice what it should be."""

    def __init__(self, model: FakeModel, pending: FakePending) -> None:
        super().__init__(model, np.zeros((1, 2), np.float32))
        self._pending = pending

    def wait(self) -> Velocity:
        return self._pending.wait() * 2


def _raise() -> FakeModel:
    raise MemoryError("no room for two models")


def _exit() -> FakeModel:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (_raise, MemoryError, "no room"),
        (_exit, ModelError, "did not load: SystemExit"),
        (lambda: Unsound(digest="b"), ModelError, "golden check: a window in a batch of 4"),
        (lambda: FakeModel(digest="b", n_units=9), InputError, "unit_ids of model fake"),
        (lambda: FakeModel(digest="b", slots=0), ModelError, "0 stream slots"),
    ],
)
def test_when_the_new_model_does_not_pass_the_old_one_stays(
    build: Callable[[], FakeModel], error: type[Exception], said: str
) -> None:
    bench = bench_with("a")
    bench.engine.submit_open(bench.put("open"))
    (stream,) = bench.outcome("open").tolist()  # type: ignore[union-attr]
    for step in range(2):
        bench.engine.submit_step(
            stream, step, one_event(1), deadline_s=9.0, on_done=bench.put(step)
        )
        bench.engine.swap(build, bench.put("swap"))
        outcome = bench.outcome("swap")
        assert type(outcome) is error and said in str(outcome)
    second = bench.outcome(1)
    assert isinstance(second, Answer) and (second.digest, second.context_steps) == ("a", 2)


def test_a_drain_at_any_moment_of_a_swap_leaves_nobody_waiting() -> None:
    random = np.random.default_rng(0)
    before = threading.active_count()
    for _ in range(60):
        bench = bench_with("a")
        begun = threading.Semaphore(0)

        def build(begun: threading.Semaphore = begun) -> FakeModel:
            begun.release()
            return FakeModel(digest="b", slow=True)

        bench.engine.swap(build, bench.put("swap"))
        assert begun.acquire(timeout=10)
        for key in range(int(random.integers(0, 60))):
            bench.window(key)
            bench.engine.deliver()
        bench.engine.drain()
        bench.until(lambda bench=bench: bench.engine.state is State.STOPPED)  # type: ignore[misc]
        assert isinstance(bench.outcome("swap"), ModelCard | NotReadyError)
        assert all(isinstance(outcome, Answer) for outcome in bench.got.values())
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end, "a thread still waits"
        time.sleep(0.01)


def test_one_swap_at_a_time_and_none_holds_up_a_drain() -> None:
    bench = bench_with("a")
    go = threading.Semaphore(0)
    built = threading.Semaphore(0)

    def build() -> FakeModel:
        assert go.acquire(timeout=10)
        built.release()
        return FakeModel(digest="b")

    bench.engine.swap(build, bench.put("swap"))
    with pytest.raises(NotReadyError, match="another swap"):
        bench.engine.swap(build, bench.put("other"))
    bench.window(0)
    assert isinstance(bench.outcome(0), Answer)
    bench.engine.drain()
    bench.until(lambda: bench.engine.state is State.STOPPED)
    assert isinstance(bench.outcome("swap"), NotReadyError)
    go.release()
    assert built.acquire(timeout=10)
    assert bench.engine.state is State.STOPPED and not bench.deaths
