"""The engine on its real threads: its life, its doors, and that nobody is left waiting."""

import threading
import time

import numpy as np
import pytest

from cortex.errors import InputError
from cortex.ragged_events import RaggedEvents
from serving.engine import fake_model
from serving.engine.answers import Answer, FramesAnswer
from serving.engine.engine import State
from serving.engine.engine_bench import EngineBench
from serving.engine.errors import BusyError, InfeasibleError, ModelError, NotReadyError
from serving.engine.fake_model import DeviceFault, FakeModel, FakePending
from serving.engine.model import IntArray, Velocity
from serving.engine.pipeline_driver import one_event
from serving.engine.settings import EngineSettings
from serving.engine.stalled import Freshness


class GatedModel(FakeModel):
    """A fake that, once armed, waits at each launch for the test to let it go."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def launch_windows(self, events: RaggedEvents) -> FakePending:
        if self.armed:
            self.begun.release()
            assert self.go.acquire(timeout=10)
        return super().launch_windows(events)


def gated(**limits: int) -> tuple[EngineBench, GatedModel]:
    model = GatedModel()
    bench = EngineBench(lambda: model, EngineSettings(**limits)).ready()  # type: ignore[arg-type]
    model.armed = True
    model.batches.clear()
    model.ended.clear()
    bench.window(0)
    assert model.begun.acquire(timeout=10)  # The thread is held in this batch.
    return bench, model


def open_stream(bench: EngineBench, count: int = 1) -> IntArray:
    bench.engine.submit_open(bench.put("open"), count)
    streams = bench.outcome("open")
    assert isinstance(streams, np.ndarray)
    return streams


@pytest.mark.parametrize("slow", [False, True])
def test_windows_steps_and_frames_are_answered(slow: bool) -> None:
    bench = EngineBench(lambda: FakeModel(slow=slow)).ready()
    bench.window("window", 7)
    answer = bench.outcome("window")
    assert isinstance(answer, Answer) and answer.digest == "f" * 64
    assert (answer.velocity, answer.context_steps) == ((7, 1), 8)
    streams = open_stream(bench, 3)
    bench.engine.submit_step(
        int(streams[1]), 0, one_event(2), deadline_s=1.0, on_done=bench.put("step")
    )
    first = bench.outcome("step")
    assert isinstance(first, Answer)
    assert (first.velocity, first.context_steps) == ((2, 1), 1)
    bench.engine.submit_frames(
        streams,
        np.array([0, 1, 0]),
        RaggedEvents.of([one_event(value) for value in (1, 2, 3)]),
        deadline_s=1.0,
        on_done=bench.put("frames"),
    )
    frames = bench.outcome("frames")
    assert isinstance(frames, FramesAnswer) and not frames.errors
    assert frames.records["velocity"].tolist() == [[1, 1], [4, 2], [3, 1]]
    assert frames.records["context_steps"].tolist() == [1, 2, 1]
    assert [(report.kind.value, report.size) for report in bench.reports] == [
        ("window", 1),
        ("step", 1),
        ("step", 3),
    ]


def test_batches_that_end_at_once_do_not_overtake_those_that_are_waited_for() -> None:
    class Unsteady(FakeModel):
        """Some launches are done at once, and others take a moment."""

        def launch_windows(self, events: RaggedEvents) -> FakePending:
            pending = super().launch_windows(events)
            return pending if events.value.sum() % 2 else Slow(self, pending.wait())

    class Slow(FakePending):
        def done(self) -> bool:
            return False

        def wait(self) -> Velocity:
            time.sleep(0.0005)
            return super().wait()

    bench = EngineBench(Unsteady, EngineSettings(max_batch=1)).ready()
    for value in range(1, 301):
        bench.window(value, value)
    for value in range(1, 301):
        answer = bench.outcome(value)
        assert isinstance(answer, Answer) and answer.velocity[0] == value


def test_columns_that_do_not_fit_are_refused_at_the_door() -> None:
    bench = EngineBench(FakeModel).ready()
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    for streams, steps, samples in ((two, one, 1), (two, two, 1), (one[:0], one[:0], 0)):
        with pytest.raises(InputError, match="frames"):
            bench.engine.submit_frames(
                streams, steps, RaggedEvents.silence(samples), deadline_s=1.0, on_done=print
            )
    assert bench.engine.pending == 0


def test_nothing_is_taken_before_ready() -> None:
    with pytest.raises(NotReadyError, match="warming"):
        EngineBench(FakeModel).window(0)


def test_busy_and_infeasible_are_refused_at_the_door() -> None:
    bench, model = gated(max_batch=4, max_queue=2)
    bench.window(1)
    with pytest.raises(BusyError):
        bench.window(2)
    bench.now = 0.5
    model.go.release(2)
    bench.until(lambda: bench.engine.pending == 0)
    with pytest.raises(InfeasibleError):
        bench.window(3, deadline_s=0.001)
    bench.now = 5.0  # Too long ago to be believed: an idle engine tries again.
    model.go.release()
    bench.window(4, deadline_s=0.001)
    assert isinstance(bench.outcome(4), Answer)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("value", "death"), [(fake_model.FAULT, DeviceFault), (fake_model.KILL, SystemExit)]
)
def test_what_kills_the_thread_fails_everybody_and_is_reported(
    value: int, death: type[BaseException], slow: bool
) -> None:
    bench = EngineBench(lambda: FakeModel(slow=slow)).ready()
    bench.window(0, value)
    bench.window(1)
    bench.until(lambda: bench.engine.state is State.FAILED)
    assert isinstance(bench.outcome(0), NotReadyError)
    assert 1 in bench.got
    assert bench.engine.pending == 0
    assert [type(each) for each in bench.deaths] == [death]
    with pytest.raises(NotReadyError, match="failed"):
        bench.window(2)


def test_a_model_that_does_not_load_is_reported() -> None:
    def build() -> FakeModel:
        raise InputError("no such model")

    bench = EngineBench(build)
    bench.until(lambda: bench.engine.state is State.FAILED)
    assert str(bench.deaths[0]) == "no such model"


@pytest.mark.parametrize("slow", [False, True])
def test_draining_leaves_nobody_waiting(slow: bool) -> None:
    bench = EngineBench(lambda: FakeModel(slow=slow), EngineSettings(max_batch=2)).ready()
    for key in range(50):
        bench.window(key)
    bench.engine.drain()
    with pytest.raises(NotReadyError, match="draining"):
        bench.window(99)
    bench.until(lambda: bench.engine.state is State.STOPPED)
    assert sorted(bench.got) == list(range(50))  # type: ignore[type-var]
    assert all(isinstance(outcome, Answer) for outcome in bench.got.values())


def test_an_abandoned_open_gives_its_slots_back() -> None:
    bench = EngineBench(lambda: FakeModel(slots=2)).ready()
    bench.engine.submit_open(bench.put("never"), 2).abandon()
    bench.until(lambda: bench.engine.pending == 0)
    assert len(open_stream(bench, 2)) == 2 and "never" not in bench.got


def test_the_latest_velocity_ages_and_goes_with_its_stream() -> None:
    bench = EngineBench(FakeModel).ready()
    (stream,) = open_stream(bench).tolist()
    assert bench.engine.latest(stream).state is Freshness.STALE
    bench.engine.submit_step(stream, 0, one_event(6), deadline_s=1.0, on_done=bench.put(0))
    bench.outcome(0)
    assert bench.engine.latest(stream) == ((6.0, 1.0), 0.0, Freshness.FRESH)
    bench.now = 0.2
    velocity, age_s, state = bench.engine.latest(stream)
    assert state is Freshness.DECAYING and age_s == 0.2
    assert velocity == pytest.approx((3.0, 0.5))
    # A repeated step is no news.
    bench.engine.submit_step(stream, 0, one_event(6), deadline_s=1.0, on_done=bench.put(1))
    bench.outcome(1)
    assert bench.engine.latest(stream).age_s == 0.2
    bench.engine.submit_close(stream, bench.put("closed"))
    with pytest.raises(InputError, match="closed"):
        bench.engine.latest(stream)


@pytest.mark.parametrize("slow", [False, True])
def test_a_hundred_thousand_random_cancellations_lose_nothing(slow: bool) -> None:
    random = np.random.default_rng(0)
    bench = EngineBench(lambda: FakeModel(slow=slow), EngineSettings(max_batch=8)).ready()
    (stream,) = open_stream(bench).tolist()
    kept: set[object] = set()
    step = 0
    for key in range(50_000):
        if random.random() < 0.1:
            job = bench.engine.submit_step(
                stream, step, one_event(1), deadline_s=10.0, on_done=bench.put(key)
            )
            step += 1
        else:
            job = bench.window(key)
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


def test_a_failed_batch_is_reported_to_those_in_it_and_the_engine_goes_on() -> None:
    bench = EngineBench(lambda: FakeModel(slow=True)).ready()
    bench.window(0, fake_model.RAISE)
    assert isinstance(bench.outcome(0), ModelError)
    bench.window(1)
    assert isinstance(bench.outcome(1), Answer)
