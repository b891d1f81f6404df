from dataclasses import dataclass

import pytest

from serving.engine.admission import Admission
from serving.engine.errors import BusyError, InfeasibleError
from serving.engine.jobs import Kind
from serving.engine.service_time import ServiceTime


def measured(*, rows: int, seconds: float, events: int = 1, now: float = 0.0) -> ServiceTime:
    times = ServiceTime()
    times.record(Kind.WINDOW, rows, events, seconds, now)
    return times


def admission(times: ServiceTime, *, max_queue: int = 99, max_batch: int = 4) -> Admission:
    limits = {Kind.WINDOW: max_batch, Kind.STEP: max_batch}
    return Admission(max_queue=max_queue, max_batch=limits, pace=times)


@dataclass(frozen=True, kw_only=True)
class Asked:
    deadline: float
    rows: int = 1
    widest: int = 1
    kind: Kind = Kind.WINDOW


def test_rows_in_flight_are_bounded() -> None:
    door = admission(ServiceTime(), max_queue=5)
    for rows in (1, 3):
        door.check(Asked(deadline=1.0, rows=rows), 0.0)
        door.enter(Asked(rows=rows, widest=1, deadline=1.0))
    door.check(Asked(deadline=1.0), 0.0)
    with pytest.raises(BusyError, match="at most 5"):
        door.check(Asked(deadline=1.0, rows=2, kind=Kind.STEP), 0.0)
    door.leave(Asked(rows=3, widest=1, deadline=1.0))
    door.check(Asked(deadline=1.0, rows=4, kind=Kind.STEP), 0.0)
    assert door.in_flight == 1


def test_a_deadline_shorter_than_a_batch_is_refused() -> None:
    door = admission(measured(rows=1, seconds=0.010), max_batch=1)
    with pytest.raises(InfeasibleError, match=r"5\.0 ms"):
        door.check(Asked(deadline=0.005), 0.0)
    door.check(Asked(deadline=0.013), 0.0)


def test_frames_take_as_many_batches_as_their_rows_fill() -> None:
    times = ServiceTime()
    times.record(Kind.STEP, 4, 1, 0.010, 0.0)
    door = admission(times)
    door.check(Asked(deadline=0.026, rows=8, kind=Kind.STEP), 0.0)
    with pytest.raises(InfeasibleError):
        door.check(Asked(deadline=0.024, rows=8, kind=Kind.STEP), 0.0)


def test_only_earlier_deadlines_are_waited_for() -> None:
    door = admission(measured(rows=2, seconds=0.010), max_batch=2)
    door.check(Asked(deadline=0.015), 0.0)
    door.enter(Asked(rows=4, widest=1, deadline=1.0))
    door.check(Asked(deadline=0.015), 0.0)
    door.enter(Asked(rows=4, widest=1, deadline=0.012))
    with pytest.raises(InfeasibleError):
        door.check(Asked(deadline=0.015), 0.0)
    door.leave(Asked(rows=4, widest=1, deadline=0.012))
    door.check(Asked(deadline=0.015), 0.0)


def test_wide_requests_cost_what_wide_ones_took() -> None:
    times = measured(rows=1, seconds=0.001, events=16)
    times.record(Kind.WINDOW, 1, 1024, 0.100, 0.0)
    door = admission(times)
    door.check(Asked(deadline=0.050, widest=16), 0.0)
    with pytest.raises(InfeasibleError):
        door.check(Asked(deadline=0.050, widest=1000), 0.0)
    door.enter(Asked(rows=1, widest=1000, deadline=0.04))
    with pytest.raises(InfeasibleError):
        door.check(Asked(deadline=0.050, widest=16), 0.0)


def test_an_old_measurement_is_not_believed() -> None:
    door = admission(measured(rows=1, seconds=9.0), max_batch=1)
    with pytest.raises(InfeasibleError):
        door.check(Asked(deadline=1.5), 0.5)
    door.check(Asked(deadline=1.6), 1.5)


def test_the_average_follows_what_is_measured() -> None:
    times = measured(rows=3, seconds=1.0, events=5)
    assert times.estimate(Kind.WINDOW, 4, 8, 0.0) == 1.0
    assert times.estimate(Kind.WINDOW, 2, 8, 0.0) == 0.0
    assert times.estimate(Kind.WINDOW, 4, 4, 0.0) == 0.0
    assert times.estimate(Kind.WINDOW, 32, 64, 0.0) == 1.0
    assert times.estimate(Kind.STEP, 4, 8, 0.0) == 0.0
    times.record(Kind.WINDOW, 4, 8, 2.0, 0.1)
    assert times.estimate(Kind.WINDOW, 4, 8, 0.1) == pytest.approx(1.2)
