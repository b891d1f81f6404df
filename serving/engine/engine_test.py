import _thread
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from cortex.errors import InputError
from cortex.events import Events
from serving.engine import fake_model
from serving.engine.engine import Engine, EngineSettings, Host, State
from serving.engine.errors import (
    BusyError,
    ExpiredError,
    InfeasibleError,
    ModelError,
    NotReadyError,
)
from serving.engine.fake_model import DeviceFault, FakeModel
from serving.engine.jobs import Answer, DecodeStream, Job, Outcome
from serving.engine.model import Velocity
from serving.engine.stream import Stream


class GatedModel(FakeModel):
    """A fake that, once armed, waits at each batch for the test to let it go."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def decode(self, windows: "list[Events]") -> Velocity:  # type: ignore[override]
        if self.armed:
            self.begun.release()
            assert self.go.acquire(timeout=10)
        return super().decode(windows)


class Bench:
    """An engine, and a host that delivers when the test looks."""

    def __init__(
        self, build: Callable[[], FakeModel] = FakeModel, *, max_batch: int = 4, max_queue: int = 64
    ) -> None:
        self.now = 0.0
        self.woken = threading.Event()
        self.deaths: list[BaseException] = []
        self.got: dict[int, Outcome] = {}
        self.order: list[int] = []
        self.engine = Engine(
            build,
            settings=EngineSettings(max_batch=max_batch, max_queue=max_queue),
            host=Host(
                notify=self.woken.set,
                start_thread=_thread.start_new_thread,
                clock=lambda: self.now,
                is_fatal=lambda error: isinstance(error, DeviceFault),
                on_death=self.deaths.append,
            ),
        )
        self.engine.start()

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        self.engine.deliver()
        while not done():
            assert self.woken.wait(max(0.0, end - time.monotonic())), "a wake-up was lost"
            self.woken.clear()
            self.engine.deliver()

    def ready(self) -> "Bench":
        self.until(lambda: self.engine.state is State.READY)
        return self

    def put(self, key: int) -> Callable[[Outcome], None]:
        def done(outcome: Outcome) -> None:
            assert key not in self.got
            self.got[key] = outcome
            self.order.append(key)

        return done

    def decode(self, key: int, value: int = 1, deadline_s: float = 10.0) -> Job:
        return self.engine.submit_decode(
            events(value), deadline_s=deadline_s, on_done=self.put(key)
        )

    def answer(self, key: int) -> Outcome:
        self.until(lambda: key in self.got)
        return self.got.pop(key)

    def open(self) -> DecodeStream:
        self.engine.submit_open(self.put(-1))
        stream = self.answer(-1)
        assert isinstance(stream, Stream)
        return stream

    def step(self, stream: DecodeStream, step: int, value: int = 1) -> Outcome:
        self.engine.submit_step(stream, step, events(value), deadline_s=10.0, on_done=self.put(-2))
        return self.answer(-2)


def events(value: int) -> Events:
    one = np.zeros(1, np.int64)
    return Events(unit=one, time_bin=one, value=one + value)


def test_a_window_is_answered() -> None:
    bench = Bench().ready()
    bench.decode(0, 7)
    answer = bench.answer(0)
    assert isinstance(answer, Answer)
    assert (answer.velocity, answer.context_steps) == ((7.0, 1.0), 8)
    assert not answer.late and answer.batch_size == 1


def test_nothing_is_taken_before_ready() -> None:
    with pytest.raises(NotReadyError, match="warming"):
        Bench().decode(0)


def gated(**limits: int) -> tuple[Bench, GatedModel]:
    model = GatedModel()
    bench = Bench(lambda: model, **limits).ready()
    model.armed = True
    model.batches.clear()
    bench.decode(0)
    assert model.begun.acquire(timeout=10)  # The thread is held in this batch.
    return bench, model


def test_waiting_requests_are_batched_by_deadline() -> None:
    bench, model = gated(max_batch=2)
    for key, deadline_s in ((1, 9.0), (2, 8.0), (3, 7.0)):
        bench.decode(key, deadline_s=deadline_s)
    model.go.release(3)
    bench.until(lambda: len(bench.got) == 4)
    assert bench.order == [0, 3, 2, 1]
    assert model.batches == [1, 2, 1]


def test_an_expired_request_is_answered_and_not_computed() -> None:
    bench, model = gated()
    bench.decode(1, deadline_s=1.0)
    bench.now = 2.0
    model.go.release()
    assert isinstance(bench.answer(1), ExpiredError)
    assert model.batches == [1]


def test_an_abandoned_request_is_not_computed() -> None:
    bench, model = gated()
    bench.decode(1).abandon()
    model.go.release()
    bench.until(lambda: bench.engine.pending == 0)
    assert model.batches == [1] and list(bench.got) == [0]


def test_busy_and_infeasible_are_refused_at_the_door() -> None:
    bench, model = gated(max_queue=2)
    bench.decode(1)
    with pytest.raises(BusyError):
        bench.decode(2)
    bench.now = 0.5
    model.go.release(2)
    bench.until(lambda: bench.engine.pending == 0)
    with pytest.raises(InfeasibleError):
        bench.decode(3, deadline_s=0.001)
    bench.now = 5.0  # Too long ago to be believed: an idle engine tries again.
    model.go.release()
    bench.decode(4, deadline_s=0.001)
    assert isinstance(bench.answer(4), Answer)


def test_bad_events_are_refused_alone() -> None:
    bench = Bench().ready()
    bad = Events(unit=np.array([8]), time_bin=np.array([0]), value=np.array([1]))
    with pytest.raises(InputError, match="unit 8, expected 0 to 7"):
        bench.engine.submit_decode(bad, deadline_s=1.0, on_done=bench.put(0))
    assert bench.engine.pending == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (fake_model.RAISE, "asked to raise"),
        (fake_model.NOT_A_NUMBER, "not finite"),
        (fake_model.TOO_FEW, "expected"),
    ],
)
def test_a_failing_model_fails_the_batch_and_the_engine_goes_on(value: int, said: str) -> None:
    bench = Bench().ready()
    bench.decode(0, value)
    outcome = bench.answer(0)
    assert isinstance(outcome, ModelError) and said in str(outcome)
    bench.decode(1)
    assert isinstance(bench.answer(1), Answer)


def test_a_request_with_a_nan_answer_fails_alone() -> None:
    bench, model = gated()
    bench.decode(1, fake_model.NOT_A_NUMBER)
    bench.decode(2)
    model.go.release(2)
    bench.until(lambda: len(bench.got) == 3)
    assert model.batches == [1, 2]
    assert isinstance(bench.got[1], ModelError) and isinstance(bench.got[2], Answer)


def test_a_fatal_error_fails_everybody_and_is_reported() -> None:
    bench = Bench().ready()
    bench.decode(0, fake_model.FAULT)
    bench.decode(1)
    bench.until(lambda: bench.engine.state is State.FAILED)
    assert isinstance(bench.answer(0), NotReadyError)
    assert 1 in bench.got
    assert bench.engine.pending == 0
    assert [type(death) for death in bench.deaths] == [DeviceFault]
    with pytest.raises(NotReadyError, match="failed"):
        bench.decode(2)


def test_a_model_that_does_not_load_is_reported() -> None:
    def build() -> FakeModel:
        raise InputError("no such model")

    bench = Bench(build)
    bench.until(lambda: bench.engine.state is State.FAILED)
    assert str(bench.deaths[0]) == "no such model"


def test_a_model_that_fails_the_golden_check_never_serves() -> None:
    class Broken(FakeModel):
        def decode(self, windows: "list[Events]") -> Velocity:  # type: ignore[override]
            return super().decode(windows) * np.float32("nan")

    bench = Bench(Broken)
    bench.until(lambda: bench.engine.state is State.FAILED)
    assert "golden check" in str(bench.deaths[0])


def test_draining_leaves_nobody_waiting() -> None:
    bench, model = gated(max_batch=2)
    for key in range(1, 6):
        bench.decode(key)
    bench.engine.drain()
    with pytest.raises(NotReadyError, match="draining"):
        bench.decode(9)
    model.go.release(9)
    bench.until(lambda: bench.engine.state is State.STOPPED)
    assert sorted(bench.got) == list(range(6))
    assert all(isinstance(outcome, Answer) for outcome in bench.got.values())


def test_a_stream_fills_repeats_and_refuses() -> None:
    bench = Bench().ready()
    stream = bench.open()
    first = bench.step(stream, 0, 5)
    assert isinstance(first, Answer) and first.velocity == (5.0, 1.0)
    assert bench.step(stream, 0, 9) is first
    ahead = bench.step(stream, 4, 2)
    assert isinstance(ahead, Answer)
    assert (ahead.filled, ahead.context_steps, ahead.velocity) == (3, 5, (7.0, 2.0))
    assert isinstance(bench.step(stream, 2), InputError)
    assert isinstance(bench.step(stream, 14), InputError)
    assert stream.order.behind == 1
    last = bench.step(stream, 13)
    assert isinstance(last, Answer) and (last.filled, last.context_steps) == (8, 8)


def test_a_stream_that_the_model_failed_in_is_not_trusted_again() -> None:
    bench = Bench().ready()
    stream = bench.open()
    assert isinstance(bench.step(stream, 0, fake_model.RAISE), ModelError)
    outcome = bench.step(stream, 0)
    assert isinstance(outcome, ModelError) and "open a new one" in str(outcome)


def test_slots_run_out_and_come_back() -> None:
    bench = Bench(lambda: FakeModel(max_streams=1)).ready()
    stream = bench.open()
    bench.engine.submit_open(bench.put(0))
    assert isinstance(bench.answer(0), BusyError)
    for key in (1, 2):  # Closing twice is harmless.
        bench.engine.submit_close(stream, bench.put(key))
    assert isinstance(bench.step(stream, 0), InputError)
    assert bench.open().slot == stream.slot


def test_twenty_thousand_random_cancellations_lose_nothing() -> None:
    random = np.random.default_rng(0)
    bench = Bench(max_batch=8, max_queue=10_000).ready()
    kept: set[int] = set()
    for key in range(20_000):
        job = bench.decode(key)
        if random.random() < 0.5:
            job.abandon()
            bench.got.pop(key, None)
        else:
            kept.add(key)
        if random.random() < 0.05:
            bench.engine.deliver()
        if bench.engine.pending > 200:
            bench.until(lambda: bench.engine.pending < 50)
    bench.until(lambda: bench.engine.pending == 0)
    assert set(bench.got) == kept
    bench.engine.drain()
    bench.until(lambda: bench.engine.state is State.STOPPED)
