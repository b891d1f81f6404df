"""What Prometheus reads of the server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# 5, 8, 10 and 30 ms are common latency objectives of a closed loop, 50 ms its usual frame.
LATENCY_BUCKETS = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.008,
    0.010,
    0.015,
    0.020,
    0.030,
    0.050,
    0.1,
    0.25,
    1,
)
EVENT_BUCKETS = (0, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class Metrics:
    """The server's metrics, on a registry of its own. Used by the host's thread only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every metric.

        Args:
            registry: where; not the global one, so that two servers in a process do not mix.
        """
        self._registry = registry
        self._requests = Counter(
            "cortex_requests_total",
            "Requests answered.",
            ["endpoint", "status"],
            registry=registry,
        )
        self._latency = Histogram(
            "cortex_request_seconds",
            "Seconds from a request's arrival to its answer.",
            ["endpoint"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._events = Histogram(
            "cortex_request_events",
            "Events in a request.",
            ["endpoint"],
            buckets=EVENT_BUCKETS,
            registry=registry,
        )
        self._batch_size = Histogram(
            "cortex_batch_size",
            "Requests in a batch.",
            ["kind"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "cortex_batch_seconds",
            "Seconds that a batch took.",
            ["kind"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._refused = Counter(
            "cortex_refused_total",
            "Requests that were not computed, or failed, by reason.",
            ["reason"],
            registry=registry,
        )
        self._late = Counter(
            "cortex_late_total", "Answers that were ready after their deadline.", registry=registry
        )
        self._filled = Counter(
            "cortex_filled_steps_total", "Missing stream steps run empty.", registry=registry
        )
        self._evicted = Counter(
            "cortex_streams_evicted_total",
            "Streams whose state gave way to another's.",
            registry=registry,
        )
        self._restarted = Counter(
            "cortex_streams_restarted_total",
            "Streams that began again because their state was lost.",
            registry=registry,
        )
        self._behind = Counter(
            "cortex_steps_behind_total",
            "Steps refused because their stream had moved past them.",
            registry=registry,
        )
        self._latest = Counter(
            "cortex_latest_total",
            "Reads of a stream's latest velocity, by how fresh it was.",
            ["state"],
            registry=registry,
        )
        self._swaps = Counter(
            "cortex_swaps_total",
            "Attempts to serve another model.",
            ["outcome"],
            registry=registry,
        )
        self.streams_open = Gauge("cortex_streams_open", "Streams open.", registry=registry)
        self._queue_depth = Gauge(
            "cortex_queue_depth", "Requests in the engine.", registry=registry
        )
        self._in_flight = Gauge(
            "cortex_batches_in_flight", "Batches that the model works on.", registry=registry
        )
        self._ready = Gauge("cortex_ready", "1 while requests are wanted.", registry=registry)
        self._model = Gauge(
            "cortex_model_info", "The model served.", ["name", "digest"], registry=registry
        )

    def observe_engine(
        self,
        *,
        pending: Callable[[], float],
        in_flight: Callable[[], float],
        ready: Callable[[], bool],
    ) -> None:
        """Says where to read what the engine holds, and readiness, when Prometheus asks."""
        self._queue_depth.set_function(pending)
        self._in_flight.set_function(in_flight)
        self._ready.set_function(ready)

    def model(self, name: str, digest: str) -> None:
        """The model that is served from now on."""
        self._model.clear()
        self._model.labels(name, digest).set(1)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """One request answered."""
        self._requests.labels(endpoint, status).inc()
        self._latency.labels(endpoint).observe(seconds)

    def events(self, endpoint: str, count: int) -> None:
        """The events of one request."""
        self._events.labels(endpoint).observe(count)

    def answered(self, *, late: bool, filled: int) -> None:
        """One answer of the engine."""
        if late:
            self._late.inc()
        if filled:
            self._filled.inc(filled)

    def refused(self, reason: str) -> None:
        """One request that got no answer."""
        self._refused.labels(reason).inc()

    def batch(self, kind: str, size: int, seconds: float) -> None:
        """One batch that ran."""
        self._batch_size.labels(kind).observe(size)
        self._batch_seconds.labels(kind).observe(seconds)

    def streams(self, *, evicted: int, restarted: int, behind: int) -> None:
        """What happened to streams since the last call."""
        self._evicted.inc(evicted)
        self._restarted.inc(restarted)
        self._behind.inc(behind)

    def latest(self, state: str) -> None:
        """One read of a stream's latest velocity."""
        self._latest.labels(state).inc()

    def swapped(self, *, ok: bool) -> None:
        """One attempt to serve another model."""
        self._swaps.labels("swapped" if ok else "refused").inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
