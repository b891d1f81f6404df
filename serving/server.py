"""Serves a decoder over HTTP and WebSocket.

python serving/server.py --model=checkpoints/m1 --port=8080
"""

import serving.http.gevent_first  # noqa: F401  # isort: skip

import sys
from pathlib import Path
from typing import Literal, cast

from absl import flags

from cortex import cli
from serving.engine.settings import EngineSettings
from serving.engine.stalled import StalledPolicy
from serving.http.gunicorn_conf import run_server
from serving.http.settings import ServerSettings
from serving.model_directory import ModelDirectory

_MODEL = flags.DEFINE_string("model", None, "Checkpoint directory.", required=True)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
_PORT = flags.DEFINE_integer("port", 8080, "Port; 0 picks one.", 0, 65535)
_DEVICE = flags.DEFINE_string("device", "cpu", "torch device.")
_PRECISION = flags.DEFINE_enum(
    "precision", "fp32", ["fp32", "bf16"], "Of weights, activations and streams; bf16 for GPUs."
)
_CPU_THREADS = flags.DEFINE_integer("cpu_threads", 1, "Threads of an operation on the CPU.", 1)
_MAX_STREAMS = flags.DEFINE_integer("max_streams", 64, "Streams whose state is kept at once.", 1)
_EVICT_IDLE_S = flags.DEFINE_float(
    "evict_idle_s", 1.0, "Seconds without a step after which a stream may be evicted.", 0.0
)
_MAX_BATCH = flags.DEFINE_integer("max_batch", 32, "Windows in a batch.", 1)
_MAX_STEP_BATCH = flags.DEFINE_integer("max_step_batch", 512, "Steps in a batch.", 1)
_BATCH_DELAY_MS = flags.DEFINE_float(
    "batch_delay_ms", 0.0, "Milliseconds that a batch may wait to fill.", 0.0
)
_MAX_QUEUE = flags.DEFINE_integer("max_queue", 8192, "Windows and steps in flight.", 1)
_HOLD_MS = flags.DEFINE_float(
    "hold_ms", 100.0, "Age up to which a stream's latest velocity is held.", 0.0
)
_DECAY_MS = flags.DEFINE_float(
    "decay_ms", 200.0, "Milliseconds in which it then falls to zero, linearly.", 0.0
)
_DEADLINE_MS = flags.DEFINE_float("deadline_ms", 200.0, "Deadline unless a request says.", 1.0)
_NOTICE_S = flags.DEFINE_float("notice_s", 2.0, "Seconds from /ready 503 to a closed port.", 0.0)
_DRAIN_S = flags.DEFINE_float("drain_s", 10.0, "Seconds for requests in flight to finish.", 0.0)
_ALLOW_RELOAD = flags.DEFINE_bool(
    "allow_reload", False, "POST /model/reload serves what is in the model's directory by then."
)
_OTLP_ENDPOINT = flags.DEFINE_string("otlp_endpoint", None, "OTLP/HTTP URL for traces.")


def main(argv: list[str]) -> None:
    """Checks the model's directory and serves it until SIGTERM."""
    source = ModelDirectory(
        path=Path(_MODEL.value),
        device=_DEVICE.value,
        max_streams=_MAX_STREAMS.value,
        precision=cast(Literal["fp32", "bf16"], _PRECISION.value),
        cpu_threads=_CPU_THREADS.value,
    )
    source.check()
    settings = ServerSettings(
        source=source,
        host=_HOST.value,
        port=_PORT.value,
        engine=EngineSettings(
            max_batch=_MAX_BATCH.value,
            max_step_batch=_MAX_STEP_BATCH.value,
            max_queue=_MAX_QUEUE.value,
            batch_delay_s=_BATCH_DELAY_MS.value / 1e3,
            evict_idle_s=_EVICT_IDLE_S.value,
            stalled=StalledPolicy(hold_s=_HOLD_MS.value / 1e3, decay_s=_DECAY_MS.value / 1e3),
        ),
        deadline_s=_DEADLINE_MS.value / 1e3,
        notice_s=_NOTICE_S.value,
        drain_s=_DRAIN_S.value,
        allow_reload=_ALLOW_RELOAD.value,
        otlp_endpoint=_OTLP_ENDPOINT.value,
    )
    sys.exit(run_server(settings))


if __name__ == "__main__":
    cli.run(main)
