r"""Measures the engine as the server runs it, without HTTP: latency, rate, streams, recovery.

bazel run //serving/load:benchmark -- --device=cuda --precision=bf16 --max_streams=8192 \
    --measured=docs/measured

The callers are in the engine's process, and share one interpreter lock with its model thread.
"""

import gc
import sys
import tempfile
from pathlib import Path
from typing import Literal, cast

from absl import flags

from cortex import cli
from cortex.errors import InputError
from serving.engine.model import ModelCard
from serving.engine.settings import EngineSettings
from serving.load import engine_rows
from serving.load.closed_loop import closed_loop
from serving.load.open_loop import OpenLoopResult, open_loop
from serving.load.overlap import traced
from serving.load.random_checkpoint import save_random_checkpoint
from serving.load.random_events import RandomSteps, RandomWindows
from serving.load.recovery import measure_recovery
from serving.load.running_engine import RunningEngine
from serving.load.search import search
from serving.load.streams import StreamsResult, run_streams
from serving.model_directory import ModelDirectory
from tools.measured.command_line import command_line
from tools.measured.table import Row, measured_here, update

PARTS = ["closed", "open", "streams", "overlap", "recovery"]

_MODEL = flags.DEFINE_string("model", None, "Checkpoint directory; without, random weights.")
_SIZE = flags.DEFINE_string("size", "S", "Size of the model of random weights.")
_UNITS = flags.DEFINE_integer("units", 182, "Units of the model of random weights.", 1)
_DEVICE = flags.DEFINE_string("device", "cpu", "torch device.")
_PRECISION = flags.DEFINE_enum("precision", "fp32", ["fp32", "bf16"], "As of the server.")
_MAX_BATCH = flags.DEFINE_integer("max_batch", 32, "Windows in a batch.", 1)
_MAX_STEP_BATCH = flags.DEFINE_integer("max_step_batch", 512, "Steps in a batch.", 1)
_MAX_STREAMS = flags.DEFINE_integer("max_streams", 64, "Streams at once, at most.", 1)
_MAX_QUEUE = flags.DEFINE_integer("max_queue", 8192, "Windows and steps in flight.", 1)
_EVENTS = flags.DEFINE_integer("events", 256, "Events of a window.", 0)
_STEP_EVENTS = flags.DEFINE_float("step_events", 16, "Events of a step, on average.", 0)
_DURATION_S = flags.DEFINE_float("duration_s", 5, "Seconds of a load of windows.", 0.1)
_CLOSED = flags.DEFINE_list("closed", "1,8,32", "Callers that each wait for their answer.")
_OPEN_FIRST = flags.DEFINE_float("open_first", 1000, "First rate of arrivals to try, 1/s.", 1)
_STREAMS_FIRST = flags.DEFINE_integer("streams_first", 512, "First number of streams to try.", 1)
_SEARCH_S = flags.DEFINE_float("streams_search_s", 5, "Seconds of a number of streams.", 0.1)
_STREAMS_S = flags.DEFINE_float(
    "streams_duration_s", 60, "Seconds of the number of streams that was found.", 0.1
)
_P99_MS = flags.DEFINE_float("p99_ms", 5, "Bound of the 99th percentile, in searches.", 0)
_TICK_MS = flags.DEFINE_float("tick_ms", 1, "Milliseconds between submissions of steps.", 0.01)
_TRACE_S = flags.DEFINE_float("trace_s", 0.1, "Seconds of the trace of copies and kernels.", 0.01)
_SKIP = flags.DEFINE_multi_enum("skip", [], PARTS, "What not to measure.")
_MEASURED = flags.DEFINE_string("measured", None, "Also write a measured table into this folder.")

# Numbers of streams that failed for the full time before it is given up.
_CONFIRMATIONS = 3


def main(argv: list[str]) -> None:
    """Measures all parts that are not skipped, and shows the table."""
    cli.no_arguments(argv)
    if not all(word.isdecimal() and int(word) for word in _CLOSED.value):
        raise InputError(f"--closed={','.join(_CLOSED.value)}, expected numbers of callers")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(_MODEL.value or folder)
        if not _MODEL.value:
            save_random_checkpoint(path, size=_SIZE.value, units=_UNITS.value)
        rows = _measure(
            ModelDirectory(
                path=path,
                device=_DEVICE.value,
                max_streams=_MAX_STREAMS.value,
                precision=cast(Literal["fp32", "bf16"], _PRECISION.value),
            )
        )
    for row in rows:
        print(f"{row.name:<45}{row.value:>12,.4g} {row.unit:<8}{row.note}")
    if _MEASURED.value:
        _write(rows, Path(_MEASURED.value))


def _measure(source: ModelDirectory) -> list[Row]:
    source.check()
    settings = EngineSettings(
        max_batch=_MAX_BATCH.value,
        max_step_batch=_MAX_STEP_BATCH.value,
        max_queue=_MAX_QUEUE.value,
    )
    parts = [part for part in PARTS if part not in _SKIP.value]
    target = RunningEngine(
        source.build, settings=settings, scope=source.scope, faults=source.faults()
    )
    card = target.until_ready()
    windows = RandomWindows(card.grid, n_units=len(card.unit_ids), events=_EVENTS.value)
    rows: list[Row] = []
    if "closed" in parts:
        rows += _closed(target, windows)
    if "open" in parts:
        rows.append(_open(target, windows))
    if "streams" in parts:
        rows.append(_streams(target, card))
    if "overlap" in parts and _on_gpu():
        rows.append(_overlap(target, windows))
    target.close()
    if "recovery" in parts:
        # Two engines' streams at once may be more than the GPU has room for.
        del target
        gc.collect()
        seen = measure_recovery(
            source.build, windows, settings=settings, scope=source.scope, faults=source.faults()
        )
        rows += engine_rows.recovery_rows(seen)
    return rows


def _closed(target: RunningEngine, windows: RandomWindows) -> list[Row]:
    rows: list[Row] = []
    for callers in map(int, _CLOSED.value):
        seen = closed_loop(target, windows, callers=callers, duration_s=_DURATION_S.value)
        _say(f"{callers} callers: {seen.windows_per_s:,.0f} windows/s, {seen.latency}")
        rows += engine_rows.closed_rows(seen, gpu=_on_gpu())
    return rows


def _open(target: RunningEngine, windows: RandomWindows) -> Row:
    def attempt(rate: float) -> OpenLoopResult:
        seen = open_loop(target, windows, rate=rate, duration_s=_DURATION_S.value)
        _say(f"{rate:,.0f} arrivals/s: {seen.latency}, {seen.refused} refused")
        return seen

    trials = search(
        attempt,
        lambda seen: seen.latency.p99_ms < _P99_MS.value,
        first=_OPEN_FIRST.value,
        # Of fewer, the 99th percentile is the slowest.
        least=100 / _DURATION_S.value,
    )
    return engine_rows.open_row(trials, p99_ms=_P99_MS.value)


def _streams(target: RunningEngine, card: ModelCard) -> Row:
    events = RandomSteps(card.grid, n_units=len(card.unit_ids), events=_STEP_EVENTS.value)

    def run(streams: int, seconds: float, *, give_up: bool = False) -> StreamsResult:
        seen = run_streams(
            target,
            events,
            streams=streams,
            step_s=card.grid.step_s,
            duration_s=seconds,
            tick_s=_TICK_MS.value / 1e3,
            give_up=give_up,
        )
        _say(
            f"{streams:,} streams for {seen.seconds:.0f} s: {seen.latency}, {seen.missed:,} "
            f"missed; before submission {seen.lag}; queued {seen.queue}; "
            f"in the model {seen.compute}"
        )
        return seen

    trials = search(
        lambda load: run(round(load), _SEARCH_S.value),
        lambda seen: seen.held(_P99_MS.value),
        first=_STREAMS_FIRST.value,
        least=1,
        most=_MAX_STREAMS.value,
        bisections=2,
        # Closer than that, luck decides.
        apart=1.1,
    )
    held = sorted((trial.result.streams for trial in trials if trial.held), reverse=True)
    seen = min((trial.result for trial in trials), key=lambda seen: seen.streams)
    for streams in held[:_CONFIRMATIONS]:
        seen = run(streams, _STREAMS_S.value, give_up=True)
        if seen.held(_P99_MS.value):
            break
    return engine_rows.streams_row(seen, step_s=card.grid.step_s, p99_ms=_P99_MS.value)


def _overlap(target: RunningEngine, windows: RandomWindows) -> Row:
    # So many that the next batch always waits.
    callers = 3 * _MAX_BATCH.value
    with tempfile.TemporaryDirectory() as folder:
        seen = traced(
            lambda: closed_loop(
                target, windows, callers=callers, duration_s=_TRACE_S.value, warm_up_s=0.0
            ),
            Path(_MEASURED.value or folder) / "engine_overlap.trace.json.gz",
        )
    return engine_rows.overlap_row(seen, callers=callers)


def _write(rows: list[Row], folder: Path) -> None:
    command = command_line("//serving/load:benchmark", files=("model",), places=("measured",))
    update(measured_here("engine_speed", rows, command=command), folder)


def _on_gpu() -> bool:
    device: str = _DEVICE.value
    return device.startswith("cuda")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
