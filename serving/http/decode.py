"""POST /decode, as a plain WSGI function: Flask would cost more than the rest of the request."""

import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from cortex.errors import InputError
from serving.engine.answers import Answer
from serving.engine.errors import EngineError
from serving.http.body import BodyError, end_connection, read_body
from serving.http.bridge import Bridge
from serving.http.wire import DecodeAnswer, DecodeRequest, ErrorAnswer, events_of, parse
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracing import Tracing

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
PATH = "/decode"


class DecodeApp:
    """Answers POST /decode, and leaves every other path to another application."""

    def __init__(
        self,
        bridge: Bridge,
        *,
        otherwise: WsgiApp,
        metrics: Metrics,
        tracing: Tracing,
        deadline_s: float,
        body_s: float,
    ) -> None:
        """Makes the application.

        Args:
            bridge: the engine.
            otherwise: answers the other paths.
            metrics: where requests are counted.
            tracing: where their spans go.
            deadline_s: the deadline of a request that gives none.
            body_s: seconds that a body may take to arrive.
        """
        self._bridge = bridge
        self._otherwise = otherwise
        self._metrics = metrics
        self._tracing = tracing
        self._deadline_s = deadline_s
        self._body_s = body_s

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        if environ["PATH_INFO"] != PATH:
            return self._otherwise(environ, start_response)
        start = time.monotonic()
        headers = [("Content-Type", "application/json")]
        status, error, answer, close = 200, None, None, None
        try:
            if environ["REQUEST_METHOD"] != "POST":
                headers.append(("Allow", "POST"))
                raise BodyError(405, f"{PATH} takes POST, not {environ['REQUEST_METHOD']}")
            answer = self._decode(read_body(environ, self._body_s))
        except BodyError as refused:
            status, error, close = refused.status, str(refused), end_connection(environ)
        except InputError as bad:
            status, error = 400, str(bad)
        except EngineError as failed:
            status, error = failed.status, str(failed)
            self._metrics.refused(type(failed).__name__)
        if status in (429, 503):
            headers.append(("Retry-After", "1"))
        payload = self._payload(answer) if answer else msgspec.json.encode(ErrorAnswer(error or ""))
        headers.append(("Content-Length", str(len(payload))))
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        self._record(environ, status, time.monotonic() - start, answer)
        return [payload] if close is None else _ThenClose(payload, close)

    def _decode(self, body: bytes) -> Answer:
        request = parse(body, DecodeRequest, "body")
        self._metrics.events(PATH, len(request.unit))
        deadline_s = self._deadline_s if request.deadline_ms is None else request.deadline_ms / 1e3
        return self._bridge.decode(events_of(request), deadline_s)

    def _payload(self, answer: Answer) -> bytes:
        return msgspec.json.encode(
            DecodeAnswer(
                velocity=answer.velocity,
                unit=self._bridge.card.velocity_unit,
                model=answer.digest,
                context_steps=answer.context_steps,
                queue_ms=answer.queue_s * 1e3,
                compute_ms=answer.compute_s * 1e3,
            )
        )

    def _record(
        self, environ: dict[str, Any], status: int, seconds: float, answer: Answer | None
    ) -> None:
        self._metrics.request(PATH, status, seconds)
        if self._tracing.on:
            self._tracing.request(
                PATH,
                seconds=seconds,
                status=status,
                headers={
                    "traceparent": environ.get("HTTP_TRACEPARENT", ""),
                    "tracestate": environ.get("HTTP_TRACESTATE", ""),
                },
                attributes={}
                if answer is None
                else {
                    "cortex.queue_ms": answer.queue_s * 1e3,
                    "cortex.compute_ms": answer.compute_s * 1e3,
                    "cortex.batch_size": answer.batch_size,
                },
            )


class _ThenClose:
    """A response that ends the connection once the server has sent it."""

    def __init__(self, payload: bytes, close: Callable[[], None]) -> None:
        self._payload = payload
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        yield self._payload
