"""What was measured of an engine, as rows of a table."""

from collections.abc import Sequence

from serving.load.closed_loop import ClosedLoopResult
from serving.load.open_loop import OpenLoopResult
from serving.load.overlap import Overlap
from serving.load.recovery import Recovery
from serving.load.search import Trial, best
from serving.load.streams import StreamsResult
from tools.measured.table import Row

# Of callers, on a GPU.
_REFERENCE = {
    32: "; the reference implementation on such a GPU: 1,560 windows/s, p99 20.5 ms",
}


def closed_rows(seen: ClosedLoopResult, *, gpu: bool) -> list[Row]:
    """Latency and rate of callers, of a model on a GPU or not."""
    name = f"engine/closed_{seen.callers}"
    note = f"{seen.unanswered} of {seen.answered + seen.unanswered:,} unanswered"
    reference = _REFERENCE.get(seen.callers, "") if gpu else ""
    return [
        Row(
            name=f"{name}/p50_ms",
            value=seen.latency.p50_ms,
            unit="ms",
            p99=seen.latency.p99_ms,
            note=f"p95 {seen.latency.p95_ms:.3g} ms",
        ),
        Row(
            name=f"{name}/windows_per_s",
            value=seen.windows_per_s,
            unit="1/s",
            note=f"{seen.latency}; {note}{reference}",
        ),
    ]


def open_row(trials: Sequence[Trial[OpenLoopResult]], *, p99_ms: float) -> Row:
    """The highest rate of arrivals that held."""
    found = best(trials)
    seen = (found or min(trials, key=lambda trial: trial.load)).result
    return Row(
        name=f"engine/open/windows_per_s_p99_under_{p99_ms:g}ms",
        value=seen.rate if found else 0.0,
        unit="1/s",
        note=f"Poisson arrivals at {seen.rate:,.0f}/s: {seen.latency}; {seen.refused} refused and "
        f"{seen.failed} failed of {seen.due:,}; {len(trials)} rates tried",
    )


def streams_row(seen: StreamsResult, *, step_s: float, p99_ms: float) -> Row:
    """The streams that were held, for as long as it says."""
    return Row(
        name=f"engine/streams_{1 / step_s:g}hz_p99_under_{p99_ms:g}ms",
        value=seen.streams if seen.held(p99_ms) else 0,
        unit="streams",
        note=f"{seen.streams:,} streams: {seen.latency}; of which before submission {seen.lag}; "
        f"queued {seen.queue}; in the model {seen.compute}; {seen.missed:,} missed "
        f"and {seen.restarted:,} restarted of {seen.steps:,} steps in {seen.seconds:.0f} s",
    )


def overlap_row(seen: Overlap, *, callers: int) -> Row:
    """How much of the copies was hidden."""
    return Row(
        name="engine/overlap",
        value=seen.share,
        unit="share of the copies' time",
        note=f"{seen.copies} copies to the GPU, {seen.copy_us:,.0f} us in all, beside kernels of "
        f"another batch; {callers} callers",
    )


def recovery_rows(seen: Recovery) -> list[Row]:
    """How long an engine is away."""
    return [
        Row(
            name="engine/recovery/batch_fault_to_answer",
            value=seen.batch_fault_s * 1e3,
            unit="ms",
            note="one batch fails, the next window is answered",
        ),
        Row(
            name="engine/recovery/fatal_fault_to_ready",
            value=seen.fatal_fault_s,
            unit="s",
            note="the model thread ends; another engine in the process has loaded the model, "
            "warmed it up and checked it",
        ),
    ]
