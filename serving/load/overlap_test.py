from typing import Any

import pytest

from serving.load.overlap import Overlap, overlap_of


def _event(cat: str, ts: float, dur: float, stream: int, name: str = "k") -> dict[str, Any]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {"stream": stream}}


def _copy(ts: float, dur: float, stream: int = 20) -> dict[str, Any]:
    return _event("gpu_memcpy", ts, dur, stream, "Memcpy HtoD (Pinned -> Device)")


def test_the_time_in_which_a_kernel_of_another_stream_ran() -> None:
    trace = [
        _event("kernel", 100, 50, 7),
        _event("kernel", 150, 10, 7),
        _event("kernel", 200, 100, 7),
        _copy(90, 20),  # 10 of it
        _copy(140, 30),  # 20 of it
        _copy(210, 40),  # all of it
        _copy(310, 5),  # nothing of it
        _copy(0, 5),  # nothing of it
    ]
    assert overlap_of(trace) == Overlap(copies=5, copy_us=100, overlapped_us=70)
    assert overlap_of(trace).share == pytest.approx(0.7)


def test_kernels_at_one_time_count_once() -> None:
    trace = [
        _event("kernel", 0, 100, 7),
        _event("kernel", 10, 20, 8),
        _event("kernel", 90, 20, 8),
        _copy(0, 200),
    ]
    assert overlap_of(trace).overlapped_us == pytest.approx(110)


def test_what_is_no_copy_to_the_device_or_no_kernel_of_another_stream_does_not_count() -> None:
    trace: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "args": {"name": "python"}},
        _event("gpu_memcpy", 0, 10, 7, "Memcpy DtoH (Device -> Pinned)"),
        _event("gpu_memset", 0, 10, 7),
        _event("cuda_runtime", 0, 10, 7),
        _event("kernel", 0, 10, 20),
        _copy(0, 10),
    ]
    assert overlap_of(trace) == Overlap(copies=1, copy_us=10, overlapped_us=0)
    assert overlap_of([]).share == 0
