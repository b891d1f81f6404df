"""Order, deadlines, fairness and faults of batches, on a clock that stands still."""

import pytest

from cortex.errors import InputError
from serving.engine import fake_model
from serving.engine.answers import Answer, Flag
from serving.engine.errors import EngineError, ExpiredError, ModelError
from serving.engine.fake_model import DeviceFault, FakeModel
from serving.engine.faults import Faults
from serving.engine.jobs import Job, Kind, Outcome
from serving.engine.pipeline import NAP_S
from serving.engine.pipeline_driver import PipelineDriver, one_event
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings


def said(outcome: Outcome) -> tuple[float, float]:
    assert isinstance(outcome, Answer), outcome
    return outcome.velocity


def test_earliest_deadline_first_and_arrival_among_equals() -> None:
    driver = PipelineDriver(FakeModel(), EngineSettings(max_batch=2))
    jobs = [driver.window(value, deadline_s) for value, deadline_s in enumerate((3, 1, 2, 1), 1)]
    driver.launch()
    driver.finish()
    assert [driver.answered(job) for job in jobs] == [False, True, False, True]
    driver.settle()
    assert [said(driver.outcome(job)) for job in jobs] == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_batch_is_of_the_kind_with_the_earliest_deadline() -> None:
    driver = PipelineDriver(FakeModel())
    (stream,) = driver.open()
    window, step = driver.window(deadline_s=2.0), driver.frames([stream], [0], deadline_s=1.0)
    driver.launch()
    driver.finish()
    assert driver.answered(step) and not driver.answered(window)


def test_two_batches_are_in_the_model_and_no_third() -> None:
    driver = PipelineDriver(FakeModel(), EngineSettings(max_batch=1))
    jobs = [driver.window() for _ in range(3)]
    driver.launch()
    driver.launch()
    assert driver.pipeline.launch() is None
    driver.finish()
    assert driver.answered(jobs[0]) and not driver.answered(jobs[1])
    driver.launch()


@pytest.mark.parametrize(("half_s", "sizes"), [(0.6, [3, 3]), (0.7, [6])])
def test_an_idle_model_gets_half_of_what_waits_where_that_costs_little(
    half_s: float, sizes: list[int]
) -> None:
    times = ServiceTime(stale_s=100.0)
    times.record(Kind.WINDOW, 4, 1, half_s, 0.0)
    times.record(Kind.WINDOW, 8, 1, 1.0, 0.0)
    driver = PipelineDriver(FakeModel(slow=True), service_time=times)
    jobs = [driver.window() for _ in range(6)]
    driver.launch()
    assert driver.pipeline.in_flight[0].rows == sizes[0]
    driver.settle()
    assert [report.size for report in driver.reports] == sizes
    assert all(isinstance(driver.outcome(job), Answer) for job in jobs)


def test_a_batch_that_would_only_wait_in_the_model_fills_until_the_running_one_is_to_end() -> None:
    model = FakeModel()
    times = ServiceTime(stale_s=99.0)
    times.record(Kind.WINDOW, 1, 1, 1.0, 0.0)
    driver = PipelineDriver(model, service_time=times)
    driver.window()
    assert not driver.pipeline.held()
    driver.launch()
    for now in (0.0, 0.5):
        driver.now = now
        driver.window()
        assert driver.pipeline.held() and driver.pipeline.launch() is None
    driver.now = 1.0 - 0.9 * NAP_S
    driver.launch()
    assert model.batches == [1, 2]
    # It ends a second after the first does, which takes longer than expected.
    driver.now = 3.0
    driver.finish()
    times.record(Kind.WINDOW, 2, 1, 1.0, 3.0)
    driver.window()
    driver.now = 3.9
    assert driver.pipeline.held()
    driver.now = 4.0
    driver.launch()


def test_a_launch_begins_the_sooner_the_longer_launching_takes() -> None:
    class Slow(FakeModel):
        def launch_windows(self, events):  # type: ignore[no-untyped-def]
            driver.now += 0.25
            return super().launch_windows(events)

    times = ServiceTime(stale_s=99.0)
    driver = PipelineDriver(Slow(slow=True), EngineSettings(max_batch=1), service_time=times)
    for _ in range(50):
        driver.window()
        driver.settle()
    times.record(Kind.WINDOW, 1, 1, 1.0, driver.now)
    service_s = times.estimate(Kind.WINDOW, 1, 1, driver.now)
    began = driver.now
    for _ in range(2):
        driver.window()
    driver.launch()
    driver.now = began + service_s - 2 * 0.25 - 0.01
    assert driver.pipeline.held()
    driver.now += 0.02
    assert not driver.pipeline.held()


def test_a_batch_is_timed_from_when_it_has_the_model_to_itself() -> None:
    driver = PipelineDriver(FakeModel(), EngineSettings(max_batch=1))
    jobs = [driver.window(deadline_s=2.5) for _ in range(2)]
    driver.launch()
    driver.launch()
    driver.now = 2.0
    driver.finish()
    driver.now = 3.0
    driver.finish()
    first, second = (driver.outcome(job) for job in jobs)
    assert isinstance(first, Answer) and isinstance(second, Answer)
    assert (first.queue_s, first.compute_s, first.flags) == (0.0, 2.0, Flag(0))
    assert (second.queue_s, second.compute_s, second.flags) == (2.0, 1.0, Flag.LATE)
    assert [report.seconds for report in driver.reports] == [2.0, 1.0]


@pytest.mark.parametrize("flooding", list(Kind))
def test_neither_kind_starves_while_the_other_never_ends(flooding: Kind) -> None:
    driver = PipelineDriver(FakeModel(), EngineSettings(max_batch=1, max_turns=3))
    (stream,) = driver.open()
    other: Job
    if flooding is Kind.WINDOW:
        other = driver.frames([stream], [0], deadline_s=1e6)
    else:
        other = driver.window(deadline_s=1e6)
    for turn in range(10):
        if flooding is Kind.WINDOW:
            driver.window(deadline_s=1.0)
        else:
            driver.frames([stream], [turn], deadline_s=1.0)
        driver.launch()
        driver.finish()
        if driver.answered(other):
            break
    assert turn == 3


def test_what_expired_is_answered_at_once_and_not_computed() -> None:
    model = FakeModel()
    driver = PipelineDriver(model, EngineSettings(max_batch=1))
    (stream,) = driver.open()
    running = [driver.window(), driver.window()]
    driver.launch()
    driver.launch()
    window = driver.window(deadline_s=1.0)
    frames = driver.frames([stream], [0], deadline_s=2.0)
    assert driver.pipeline.wake_at() == 1.0
    driver.now = 1.0
    driver.pipeline.sweep()
    assert isinstance(driver.outcome(window), ExpiredError)
    assert driver.pipeline.wake_at() == 2.0
    driver.now = 2.0
    driver.pipeline.sweep()
    assert isinstance(driver.row(frames), ExpiredError)
    assert driver.pipeline.wake_at() is None
    assert all(isinstance(driver.outcome(job), Answer) for job in running)
    assert model.batches == [1, 1]


def test_what_was_abandoned_is_not_computed() -> None:
    model = FakeModel()
    driver = PipelineDriver(model)
    (stream,) = driver.open()
    window, frames = driver.window(), driver.frames([stream], [0])
    window.abandon()
    frames.abandon()
    driver.settle()
    assert type(driver.outcome(window)) is EngineError
    assert type(driver.row(frames)) is EngineError
    assert model.batches == []


def test_no_delay_unless_asked_for() -> None:
    driver = PipelineDriver(FakeModel())
    driver.window()
    driver.launch()


def test_a_batch_waits_to_fill_and_no_longer_than_told() -> None:
    model = FakeModel()
    driver = PipelineDriver(model, EngineSettings(max_batch=3, batch_delay_s=0.5))
    driver.window()
    driver.now = 0.2
    driver.window()
    assert driver.pipeline.launch() is None
    assert driver.pipeline.wake_at() == 0.5
    driver.now = 0.5
    driver.launch()
    for _ in range(3):
        driver.window()
    driver.launch()  # It is full.
    assert model.batches == [2, 3]


def test_a_batch_does_not_wait_past_what_its_earliest_deadline_allows() -> None:
    times = ServiceTime()
    times.record(Kind.STEP, 1, 1, 0.25, 0.0)
    driver = PipelineDriver(FakeModel(), EngineSettings(batch_delay_s=9.0), service_time=times)
    (stream,) = driver.open()
    driver.frames([stream], [0], deadline_s=1.0)
    assert driver.pipeline.launch() is None
    assert driver.pipeline.wake_at() == 0.75
    driver.now = 0.75
    driver.launch()


def test_nothing_waits_for_company_once_the_engine_leaves() -> None:
    driver = PipelineDriver(FakeModel(), EngineSettings(batch_delay_s=9.0))
    job = driver.window()
    assert driver.pipeline.launch() is None
    driver.pipeline.leaving = True
    driver.settle()
    assert isinstance(driver.outcome(job), Answer) and driver.pipeline.ended


def test_a_wrong_request_fails_alone() -> None:
    model = FakeModel()
    driver = PipelineDriver(model)
    streams = driver.open(3)
    windows = [driver.window(1), driver.window(0), driver.window(3)]
    frames = driver.frames(streams, [0, 0, -1], [one_event(1), one_event(1, unit=8), one_event(1)])
    driver.settle()
    assert str(driver.outcome(windows[1])) == "window: event 0 has value 0, expected 1 to 32767"
    assert said(driver.outcome(windows[0])) == (1, 1) and said(driver.outcome(windows[2])) == (3, 1)
    assert isinstance(driver.row(frames, 0), Answer)
    assert str(driver.row(frames, 1)) == "step 0: event 0 has unit 8, expected 0 to 7"
    assert str(driver.row(frames, 2)) == "step is -1, expected 0 or more"
    assert model.batches == [2, 1]
    # It is as if the wrong step had not been sent.
    assert said(driver.step(streams[1], 0, 5)) == (5, 1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(fake_model.RAISE, "asked to raise"), (fake_model.TOO_FEW, "expected")],
)
def test_a_batch_that_fails_fails_all_its_requests_and_no_others(value: int, reason: str) -> None:
    driver = PipelineDriver(FakeModel(), EngineSettings(max_batch=2))
    jobs = [driver.window(value), driver.window(1), driver.window(1)]
    driver.settle()
    for job in jobs[:2]:
        outcome = driver.outcome(job)
        assert isinstance(outcome, ModelError) and reason in str(outcome)
    assert said(driver.outcome(jobs[2])) == (1, 1)


def test_a_window_that_is_not_finite_fails_alone() -> None:
    driver = PipelineDriver(FakeModel())
    jobs = [driver.window(fake_model.NOT_A_NUMBER), driver.window(1)]
    driver.settle()
    assert isinstance(driver.outcome(jobs[0]), ModelError)
    assert said(driver.outcome(jobs[1])) == (1, 1)


def test_a_launch_that_raises_fails_its_batch_and_the_next_goes_on() -> None:
    class OutOfMemory(FakeModel):
        def launch_windows(self, events):  # type: ignore[no-untyped-def]
            if len(events) > 1:
                raise MemoryError("no room for 2")
            return super().launch_windows(events)

    recovered: list[Exception] = []
    faults = Faults(recover=recovered.append)
    driver = PipelineDriver(OutOfMemory(), EngineSettings(max_batch=2), faults=faults)
    jobs = [driver.window() for _ in range(3)]
    driver.settle()
    outcomes = [driver.outcome(job) for job in jobs]
    assert [type(outcome) for outcome in outcomes] == [ModelError, ModelError, Answer]
    assert str(outcomes[0]) == "the model failed: MemoryError: no room for 2"
    assert [str(error) for error in recovered] == ["no room for 2"]


def test_a_fatal_error_gets_out() -> None:
    faults = Faults(is_fatal=lambda error: isinstance(error, DeviceFault))
    driver = PipelineDriver(FakeModel(), faults=faults)
    driver.window(fake_model.FAULT)
    driver.launch()
    with pytest.raises(DeviceFault):
        driver.finish()


def test_input_errors_are_the_clients_and_have_status_400() -> None:
    driver = PipelineDriver(FakeModel())
    (stream,) = driver.open()
    job = driver.frames([stream, stream + 1], [0, 0])
    driver.settle()
    answer = driver.outcomes[job]
    assert not isinstance(answer, Exception | None)
    assert answer.records["status"].tolist() == [200, 400]  # type: ignore[union-attr]
    assert isinstance(driver.row(job, 1), InputError)
