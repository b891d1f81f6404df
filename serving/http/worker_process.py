"""What runs in the one worker process: the engine, the application, and how they leave."""

import logging
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

import gevent
from prometheus_client import CollectorRegistry

from cortex.errors import InputError
from serving.engine.engine import State
from serving.http.app import make_app
from serving.http.bridge import Bridge
from serving.http.decode import DecodeApp, StartResponse
from serving.http.settings import ServerSettings
from serving.http.stream_socket import StreamSockets
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracing import Tracing

_log = logging.getLogger(__name__)
# With these two codes of a worker gunicorn ends itself rather than start another worker.
EXIT_ENGINE_DIED = 3
EXIT_BAD_MODEL = 4


class WorkerProcess:
    """The engine and the application of one worker.

    Attributes:
        wsgi: the application.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Wires everything; nothing runs yet. Call it in the worker, after the fork."""
        self._settings = settings
        settings.source.prepare()
        metrics = Metrics(CollectorRegistry())
        self._metrics = metrics
        self._tracing = Tracing.to(settings.otlp_endpoint)
        self._bridge = Bridge(
            settings.source.build,
            settings=settings.engine,
            scope=settings.source.scope,
            faults=settings.source.faults(),
            on_death=_die,
            metrics=metrics,
        )
        self._sockets = StreamSockets(self._bridge, metrics=metrics, deadline_s=settings.deadline_s)
        reload = settings.source.build if settings.allow_reload else None
        app = make_app(self._bridge, self._sockets, metrics, reload=reload)

        def otherwise(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            return app(environ, start_response)  # type: ignore[arg-type]

        self.wsgi = DecodeApp(
            self._bridge,
            otherwise=otherwise,
            metrics=metrics,
            tracing=self._tracing,
            deadline_s=settings.deadline_s,
            body_s=settings.body_s,
        )

    def start(self) -> None:
        """Starts the engine."""
        self._bridge.start()
        gevent.spawn(self._announce)

    def give_notice(self) -> None:
        """Turns /ready to 503, waits until callers have seen it, and closes the streams."""
        if self._bridge.leaving:
            return
        self._bridge.leaving = True
        _log.info("leaving: /ready is 503")
        gevent.sleep(self._settings.notice_s)
        self._sockets.leave()

    def finish(self) -> None:
        """Ends the engine and sends the last spans, once no request is left."""
        if not self._bridge.stop(self._settings.drain_s):
            _log.error("the model thread did not end within %g s", self._settings.drain_s)
        # Exporting to a collector that does not answer must not hold up the exit.
        gevent.spawn(self._tracing.shut_down).join(timeout=2)

    def _announce(self) -> None:
        start = time.monotonic()
        while self._bridge.state is State.WARMING:
            gevent.sleep(0.01)
        if self._bridge.state is State.READY:
            card = self._bridge.card
            self._metrics.model(card.name, card.digest)
            fields = {"model": card.name, "digest": card.digest, "s": time.monotonic() - start}
            _log.info("ready", extra={"fields": fields})


def _die(error: BaseException) -> None:
    """Ends the process, for its supervisor to restart: a dead model thread does not recover."""
    if isinstance(error, InputError):
        print(error, file=sys.stderr)
        code = EXIT_BAD_MODEL
    else:
        _log.error("the model thread died", exc_info=error)
        code = EXIT_ENGINE_DIED
    gevent.sleep(0.2)  # The requests that were pending have been failed: let the answers out.
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after a device fault the interpreter's clean-up may hang in the driver.
    os._exit(code)
