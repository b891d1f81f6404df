"""Runs the server under gunicorn: one process that supervises, one gevent worker that serves."""

from typing import Any

import gevent
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from serving.http.settings import ServerSettings
from serving.http.worker_process import EXIT_BAD_MODEL, WorkerProcess
from serving.telemetry.logs import log_config

EXIT_BAD_INPUT = 2
# Longer than any request may take to arrive, so that idle connections end soon in a drain.
_KEEPALIVE_S = 5


class CortexWorker(GeventWorker):
    """A gevent worker that says it is leaving before it stops listening."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handles SIGTERM, outside the signal handler so that it may wait."""
        gevent.spawn(self._leave)

    def _leave(self) -> None:
        if isinstance(self.app, CortexApplication) and self.app.process is not None:
            self.app.process.give_notice()
        self.alive = False


class CortexApplication(BaseApplication):
    """gunicorn, configured by ServerSettings alone.

    Attributes:
        process: the worker's contents; None in the supervisor.
    """

    process: WorkerProcess | None = None

    def __init__(self, settings: ServerSettings) -> None:
        """Configures gunicorn; `run` starts it."""
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Sets what differs from gunicorn's defaults."""
        settings = self._settings
        for name, value in {
            "bind": f"{settings.host}:{settings.port}",
            "workers": 1,
            "worker_class": f"{__name__}.CortexWorker",
            "preload_app": False,  # Nothing may touch the device before the fork.
            "keepalive": _KEEPALIVE_S,
            "timeout": 60,
            "graceful_timeout": int(settings.notice_s + settings.drain_s) + _KEEPALIVE_S,
            "logconfig_dict": log_config(),
            "when_ready": _print_address,
            "post_worker_init": self._start,
            "worker_exit": self._finish,
        }.items():
            self.cfg.set(name, value)
        if "control_socket_disable" in self.cfg.settings:
            self.cfg.set("control_socket_disable", True)

    def load(self) -> Any:
        """The WSGI application. Called in the worker."""
        self.process = WorkerProcess(self._settings)
        return self.process.wsgi

    def _start(self, worker: CortexWorker) -> None:
        if self.process is not None:
            self.process.start()

    def _finish(self, server: Arbiter, worker: CortexWorker) -> None:
        if self.process is not None:
            self.process.finish()


def run_server(settings: ServerSettings) -> int:
    """Serves until told to stop.

    The main module must import serving.http.gevent_first before anything else.

    Returns:
        The process's exit status: 2 when the model could not be loaded; the worker has said why.
    """
    try:
        CortexApplication(settings).run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        return EXIT_BAD_INPUT if code == EXIT_BAD_MODEL else code
    return 0


def _print_address(server: Arbiter) -> None:
    for listener in server.LISTENERS:
        host, port = listener.sock.getsockname()[:2]
        print(f"listening on http://{host}:{port}", flush=True)
