import numpy as np
import pytest

from cortex.errors import InputError
from cortex.events import Events
from serving.engine.jobs import Answer, DecodeJob, DecodeStream, StepJob
from serving.engine.scheduler import Scheduler
from serving.engine.stream import Stream, StreamOrder


def window(deadline: float) -> DecodeJob:
    return DecodeJob(
        submitted=0.0, deadline=deadline, on_done=lambda _: None, events=Events.empty()
    )


def stream() -> DecodeStream:
    order: StreamOrder[Answer] = StreamOrder(8)
    return Stream(slot=0, order=order)


def step(of: DecodeStream, number: int, deadline: float) -> StepJob:
    return StepJob(
        submitted=0.0,
        deadline=deadline,
        on_done=lambda _: None,
        events=Events.empty(),
        stream=of,
        step=number,
    )


def test_earliest_deadline_first_and_arrival_among_equals() -> None:
    scheduler = Scheduler(max_batch=2)
    jobs = [window(3.0), window(1.0), window(2.0), window(1.0)]
    for job in jobs:
        scheduler.add(job)
    assert scheduler.select(0.0).batch == [jobs[1], jobs[3]]
    assert scheduler.select(0.0).batch == [jobs[2], jobs[0]]
    assert scheduler.select(0.0).batch == [] and len(scheduler) == 0


def test_a_batch_is_of_the_most_urgent_kind() -> None:
    scheduler = Scheduler(max_batch=4)
    late, soon = window(2.0), step(stream(), 0, 1.0)
    scheduler.add(late)
    scheduler.add(soon)
    assert scheduler.select(0.0).batch == [soon]
    assert scheduler.select(0.0).batch == [late]


def test_expired_and_abandoned_jobs_are_not_computed() -> None:
    scheduler = Scheduler(max_batch=1)
    expired, left, good = window(1.0), window(2.0), window(3.0)
    for job in (expired, left, good):
        scheduler.add(job)
    left.abandon()
    selection = scheduler.select(1.5)
    assert (selection.expired, selection.abandoned, selection.batch) == ([expired], [left], [good])


def test_one_step_of_a_stream_a_batch_in_the_order_they_came() -> None:
    scheduler = Scheduler(max_batch=8)
    one, two = stream(), stream()
    first, second, other = step(one, 0, 5.0), step(one, 1, 1.0), step(two, 0, 9.0)
    for job in (first, second, other):
        scheduler.add(job)
    assert scheduler.select(0.0).batch == [first, other]
    assert scheduler.select(0.0).batch == [second]


def test_a_step_put_back_stays_ahead_of_its_stream() -> None:
    scheduler = Scheduler(max_batch=8)
    one = stream()
    first = step(one, 3, 5.0)
    scheduler.add(first)
    assert scheduler.select(0.0).batch == [first]
    scheduler.put_back(first)
    second = step(one, 4, 1.0)
    scheduler.add(second)
    assert scheduler.select(0.0).batch == [first]
    assert scheduler.select(0.0).batch == [second]


def test_streams_keep_their_order_whatever_the_deadlines() -> None:
    random = np.random.default_rng(1)
    scheduler = Scheduler(max_batch=3)
    streams = [stream() for _ in range(4)]
    sent = {each: 0 for each in streams}
    taken = {each: 0 for each in streams}
    for _ in range(2000):
        if random.random() < 0.6:
            each = streams[random.integers(4)]
            scheduler.add(step(each, sent[each], random.random()))
            sent[each] += 1
        else:
            batch = scheduler.select(0.0).batch
            assert len({job.stream for job in batch if isinstance(job, StepJob)}) == len(batch)
            for job in batch:
                assert isinstance(job, StepJob)
                assert job.step == taken[job.stream]
                taken[job.stream] += 1


def test_the_order_of_a_stream() -> None:
    order: StreamOrder[str] = StreamOrder(3)
    assert order.missing(0) == 0 and order.missing(3) == 3
    with pytest.raises(InputError, match="open a new stream"):
        order.missing(4)
    order.advance()
    order.answered(0, "answer")
    assert order.repeat(0) == "answer" and order.repeat(1) is None
    order.advance()
    assert order.repeat(0) is None
    with pytest.raises(InputError, match="behind"):
        order.missing(0)
    assert order.behind == 1
