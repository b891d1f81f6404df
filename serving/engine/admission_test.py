import pytest

from cortex.events import Events
from serving.engine.admission import Admission
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import DecodeJob, StepJob
from serving.engine.service_time import ServiceTime


def job(deadline: float) -> DecodeJob:
    return DecodeJob(
        submitted=0.0, deadline=deadline, on_done=lambda _: None, events=Events.empty()
    )


def measured(*, size: int, seconds: float, now: float = 0.0) -> ServiceTime:
    times = ServiceTime()
    times.record(DecodeJob, size, seconds, now)
    return times


def test_the_queue_is_bounded() -> None:
    admission = Admission(max_queue=2, max_batch=4, service_time=ServiceTime())
    jobs = [job(1.0), job(1.0)]
    for each in jobs:
        admission.check(DecodeJob, each.deadline, 0.0)
        admission.enter(each)
    with pytest.raises(BusyError):
        admission.check(StepJob, 1.0, 0.0)
    admission.leave(jobs[0])
    admission.check(DecodeJob, 1.0, 0.0)


def test_a_deadline_shorter_than_a_batch_is_refused() -> None:
    admission = Admission(max_queue=9, max_batch=1, service_time=measured(size=1, seconds=0.010))
    with pytest.raises(InfeasibleError, match=r"5\.0 ms"):
        admission.check(DecodeJob, 0.005, 0.0)
    admission.check(DecodeJob, 0.011, 0.0)


def test_only_earlier_deadlines_are_waited_for() -> None:
    admission = Admission(max_queue=99, max_batch=2, service_time=measured(size=2, seconds=0.010))
    admission.check(DecodeJob, 0.015, 0.0)
    for _ in range(4):
        admission.enter(job(1.0))
    admission.check(DecodeJob, 0.015, 0.0)
    for _ in range(4):
        admission.enter(job(0.012))
    with pytest.raises(InfeasibleError):
        admission.check(DecodeJob, 0.015, 0.0)


def test_an_old_measurement_is_not_believed() -> None:
    admission = Admission(max_queue=9, max_batch=1, service_time=measured(size=1, seconds=9.0))
    with pytest.raises(InfeasibleError):
        admission.check(DecodeJob, 1.5, 0.5)
    admission.check(DecodeJob, 1.6, 1.5)


def test_the_average_follows_what_is_measured() -> None:
    times = measured(size=3, seconds=1.0)
    assert times.estimate(DecodeJob, 4, 0.0) == 1.0
    assert times.estimate(DecodeJob, 2, 0.0) == 0.0
    assert times.estimate(DecodeJob, 32, 0.0) == 1.0
    times.record(DecodeJob, 4, 2.0, 0.1)
    assert times.estimate(DecodeJob, 4, 0.1) == pytest.approx(1.2)
