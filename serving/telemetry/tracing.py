"""OpenTelemetry spans of requests, off unless an endpoint is given."""

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode


class Tracing:
    """Makes a span of each request after it was answered, so that nothing waits for it.

    Start it in the worker process: the exporter's thread does not survive a fork.
    """

    def __init__(self, exporter: SpanExporter | None) -> None:
        """Starts tracing.

        Args:
            exporter: where spans go; None switches tracing off.
        """
        self._provider: TracerProvider | None = None
        if exporter is not None:
            self._provider = TracerProvider(resource=Resource.create({"service.name": "cortex"}))
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("cortex.serving")

    @classmethod
    def to(cls, endpoint: str | None) -> "Tracing":
        """Tracing over OTLP and HTTP to an endpoint such as http://collector:4318/v1/traces.

        None switches tracing off. HTTP, because a gRPC exporter holds up a cooperative event loop
        while its collector hangs.
        """
        if endpoint is None:
            return cls(None)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return cls(OTLPSpanExporter(endpoint=endpoint, timeout=2))

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._provider is not None

    def request(
        self,
        endpoint: str,
        *,
        seconds: float,
        status: int,
        headers: Mapping[str, str],
        attributes: Mapping[str, Any],
    ) -> None:
        """One request that ends now.

        Args:
            endpoint: its path; the name of the span.
            seconds: how long it took.
            status: its HTTP status.
            headers: the caller's trace context: `traceparent` and `tracestate`, if given.
            attributes: numbers and strings to attach.
        """
        if self._provider is None:
            return
        end = time.time_ns()
        span = self._tracer.start_span(
            endpoint,
            context=extract(headers),
            kind=SpanKind.SERVER,
            start_time=end - int(seconds * 1e9),
            attributes={"http.response.status_code": status, **attributes},
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=end)

    def shut_down(self) -> None:
        """Sends what is left. May take seconds when the collector does not answer."""
        if self._provider is not None:
            self._provider.shutdown()
