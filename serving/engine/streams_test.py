"""Streams: the order of their steps, gaps and repeats, slots, evictions, broken states."""

import numpy as np
import pytest

from cortex.errors import InputError
from serving.engine import fake_model
from serving.engine.answers import Answer, Flag, FramesAnswer
from serving.engine.errors import BusyError, ModelError
from serving.engine.fake_model import FakeModel
from serving.engine.pipeline_driver import PipelineDriver, one_event
from serving.engine.service_time import ServiceTime
from serving.engine.settings import EngineSettings


def answer(outcome: object) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def test_a_repeated_step_is_answered_again_and_not_run() -> None:
    model = FakeModel()
    driver = PipelineDriver(model)
    (stream,) = driver.open()
    first = answer(driver.step(stream, 0, 5))
    again = answer(driver.step(stream, 0, 9))
    assert (first.velocity, first.flags) == ((5, 1), Flag(0))
    assert again._replace(flags=first.flags, compute_s=first.compute_s) == first
    assert again.flags == Flag.DUPLICATE
    assert model.batches == [1]


def test_missing_steps_are_run_empty_and_counted() -> None:
    model = FakeModel()
    driver = PipelineDriver(model)
    (stream,) = driver.open()
    driver.step(stream, 0, 5)
    ahead = answer(driver.step(stream, 4, 2))
    assert (ahead.filled, ahead.context_steps, ahead.velocity) == (3, 5, (7, 2))
    assert model.batches == [1] * 5
    longest = answer(driver.step(stream, 13))
    assert (longest.filled, longest.context_steps) == (8, 8)


def test_steps_behind_and_far_ahead_are_refused_and_change_nothing() -> None:
    driver = PipelineDriver(FakeModel())
    (stream,) = driver.open()
    driver.step(stream, 2)
    behind, ahead = driver.step(stream, 1), driver.step(stream, 12)
    assert str(behind) == "step 1 is behind the stream, expected 3 or later"
    assert str(ahead) == (
        "step 12 is 9 ahead of the stream, at most 8 can be filled: open a new stream"
    )
    assert driver.counts.behind == 1
    assert answer(driver.step(stream, 3)).context_steps == 4


def test_each_row_fares_alone() -> None:
    driver = PipelineDriver(FakeModel())
    one, two, three = driver.open(3)
    driver.step(two, 0)
    driver.step(three, 3)
    job = driver.frames([one, two, three, 7], [1, 0, 1, 0])
    driver.settle()
    outcome = driver.outcome(job)
    assert isinstance(outcome, FramesAnswer)
    assert outcome.records["status"].tolist() == [200, 200, 400, 400]
    assert outcome.records["filled"].tolist() == [1, 0, 0, 0]
    assert outcome.records["flags"].tolist() == [0, Flag.DUPLICATE, 0, 0]
    assert np.isnan(outcome.records["velocity"][2:]).all()
    assert "behind" in str(outcome.row(2)) and "never opened" in str(outcome.row(3))


def test_steps_of_a_stream_run_in_the_order_they_came_whatever_their_deadlines() -> None:
    model = FakeModel()
    driver = PipelineDriver(model)
    one, two = driver.open(2)
    late = driver.frames([one, one], [0, 1], deadline_s=9.0)
    soon = driver.frames([one, two], [2, 0], deadline_s=1.0)
    driver.launch()
    assert model.batches == [2]  # The first step of each.
    assert driver.pipeline.launch() is None  # The others follow those in the model.
    driver.finish()
    driver.settle()
    assert model.batches == [2, 1, 1]
    context = [answer(driver.row(late, row)).context_steps for row in range(2)]
    assert [*context, answer(driver.row(soon, 0)).context_steps] == [1, 2, 3]


def test_random_steps_of_many_streams_are_answered_in_order() -> None:
    random = np.random.default_rng(1)
    driver = PipelineDriver(FakeModel(slots=6), EngineSettings(max_step_batch=3))
    streams = driver.open(6)
    sent = dict.fromkeys(streams, 0)
    jobs = []
    for _ in range(300):
        party = random.choice(streams, size=random.integers(1, 5)).tolist()
        steps = []
        for stream in party:
            steps.append(sent[stream])
            sent[stream] += 1
        jobs.append((party, steps, driver.frames(party, steps, deadline_s=10 + random.random())))
        if driver.pipeline.in_flight and random.random() < 0.5:
            driver.finish()
        if random.random() < 0.5:
            driver.pipeline.launch()
    for party, steps, job in jobs:
        for row, (_, step) in enumerate(zip(party, steps, strict=True)):
            given = answer(driver.row(job, row))
            assert (given.velocity, given.filled) == ((step + 1, step + 1), 0)


def test_a_slot_is_taken_from_the_stream_that_was_idle_longest() -> None:
    driver = PipelineDriver(FakeModel(slots=2), EngineSettings(evict_idle_s=1.0))
    one, two = driver.open(2)
    driver.step(one, 0)
    driver.now = 0.9
    driver.step(two, 0)
    with pytest.raises(BusyError, match="slot is taken: 1 asked for, 0 left"):
        driver.open()
    driver.now = 1.0
    (three,) = driver.open()
    assert driver.counts.evicted == 1
    # Stream one is told that it begins again; two was not touched.
    driver.now = 1.5
    assert isinstance(driver.step(one, 1), BusyError)
    assert answer(driver.step(two, 1)).velocity == (2, 2)
    driver.now = 2.5
    again = answer(driver.step(one, 7, 4))
    assert (again.velocity, again.context_steps, again.filled) == ((4, 1), 1, 0)
    assert again.flags == Flag.RESTARTED
    assert answer(driver.step(one, 8)).flags == Flag(0)
    assert driver.counts.restarted == 1 and driver.counts.evicted == 2
    assert isinstance(driver.step(three, 0), Answer | BusyError)


def test_an_evicted_stream_still_knows_its_last_answer_and_its_past() -> None:
    driver = PipelineDriver(FakeModel(slots=1))
    (one,) = driver.open()
    driver.step(one, 3, 5)
    driver.now = 2.0
    driver.open()
    assert answer(driver.step(one, 3)).flags == Flag.DUPLICATE
    assert "behind" in str(driver.step(one, 2))
    assert driver.counts.restarted == 0


def test_a_stream_with_a_step_waiting_or_in_the_model_is_not_evicted() -> None:
    driver = PipelineDriver(FakeModel(slots=2), EngineSettings(max_step_batch=1))
    one, two = driver.open(2)
    jobs = [driver.frames([one], [0]), driver.frames([two], [0])]
    driver.now = 5.0
    driver.launch()
    with pytest.raises(BusyError):
        driver.open()
    driver.settle()
    assert [answer(driver.row(job)).flags for job in jobs] == [Flag(0)] * 2


def test_more_streams_are_refused_together() -> None:
    driver = PipelineDriver(FakeModel(slots=4), EngineSettings(max_streams=5))
    driver.open(3)
    driver.now = 2.0
    with pytest.raises(BusyError, match="slot"):
        PipelineDriver(FakeModel(slots=4)).open(5)
    with pytest.raises(BusyError, match="5 streams may be open"):
        driver.open(3)
    assert driver.counts.evicted == 0
    driver.open(2)
    driver.settle()
    assert driver.counts.evicted == 1


def test_a_closed_stream_refuses_and_its_name_is_not_used_again() -> None:
    driver = PipelineDriver(FakeModel(slots=1), EngineSettings(max_streams=1))
    (one,) = driver.open()
    driver.step(one, 0)
    waiting = driver.frames([one], [1])
    for _ in range(2):
        driver.close(one)
    (two,) = driver.open()
    assert two != one
    assert isinstance(driver.row(waiting), InputError)
    assert str(driver.step(one, 1)) == f"stream {one} is closed, or was never opened"
    driver.close(one)
    first = answer(driver.step(two, 0))
    assert (first.velocity, first.flags) == ((1, 1), Flag(0))


def test_a_step_in_the_model_is_answered_though_its_stream_is_closed_and_replaced() -> None:
    driver = PipelineDriver(FakeModel(slots=1), EngineSettings(max_streams=1))
    (one,) = driver.open()
    job = driver.frames([one], [0], [one_event(5)])
    driver.launch()
    driver.close(one)
    (two,) = driver.open()
    driver.finish()
    assert answer(driver.row(job)).velocity == (5, 1)
    assert answer(driver.step(two, 0, 2)).velocity == (2, 1)


@pytest.mark.parametrize("value", [fake_model.RAISE, fake_model.NOT_A_NUMBER, fake_model.TOO_FEW])
def test_a_stream_that_the_model_failed_in_begins_again(value: int) -> None:
    driver = PipelineDriver(FakeModel())
    one, two = driver.open(2)
    driver.step(one, 0, 3)
    driver.step(two, 0, 3)
    assert isinstance(driver.step(one, 1, value), ModelError)
    again = answer(driver.step(one, 1, 4))
    assert (again.velocity, again.context_steps, again.flags) == ((4, 1), 1, Flag.RESTARTED)
    assert answer(driver.step(two, 1)).velocity == (4, 2)


def test_a_reset_that_fails_opens_nothing() -> None:
    class Broken(FakeModel):
        def reset(self, slot_B, first_step_B):  # type: ignore[no-untyped-def]
            raise RuntimeError("no reset")

    driver = PipelineDriver(Broken(slots=1))
    for _ in range(3):
        with pytest.raises(ModelError, match="no reset"):
            driver.open()


def test_another_model_takes_over_between_two_batches() -> None:
    driver = PipelineDriver(FakeModel(slots=2, digest="a"), EngineSettings(max_batch=1))
    one, two = driver.open(2)
    driver.step(one, 0)
    driver.step(two, 0)
    windows = [driver.window(), driver.window()]
    step = driver.frames([one], [1], deadline_s=99.0)
    driver.launch()
    driver.finish()
    driver.pipeline.serve(FakeModel(slots=1, digest="b"), ServiceTime())
    driver.settle()
    assert [answer(driver.outcome(job)).digest for job in windows] == ["a", "b"]
    again = answer(driver.row(step))
    assert (again.digest, again.context_steps, again.flags) == ("b", 1, Flag.RESTARTED)
    old = answer(driver.step(two, 0))
    assert (old.digest, old.flags) == ("a", Flag.DUPLICATE)
    # The new model has one slot, and stream one was just there.
    assert isinstance(driver.step(two, 1), BusyError)
