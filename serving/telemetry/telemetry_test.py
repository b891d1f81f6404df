import json
import logging

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from serving.telemetry.logs import JsonFormatter
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracing import Tracing


def test_two_servers_do_not_mix_their_metrics() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.request("/decode", 200, 0.004)
    assert 'le="0.005"} 1.0' in first.text().decode()
    assert "/decode" not in second.text().decode()


def test_a_log_line_is_one_json_object() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "two\nlines", "fields": {"n": 1}}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines" and json.loads(line)["n"] == 1


def test_a_span_continues_its_callers_trace() -> None:
    spans = InMemorySpanExporter()
    tracing = Tracing(spans)
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    tracing.request("/decode", seconds=0.5, status=504, headers=parent, attributes={"k": 1})
    tracing.shut_down()
    (span,) = spans.get_finished_spans()
    assert span.context is not None and f"{span.context.trace_id:x}" == "a" * 32
    assert span.end_time is not None and span.start_time is not None
    assert span.end_time - span.start_time == 500_000_000
    assert not span.status.is_ok


def test_tracing_is_off_without_an_endpoint() -> None:
    tracing = Tracing.to(None)
    assert not tracing.on
    tracing.request("/decode", seconds=0.5, status=200, headers={}, attributes={})
    tracing.shut_down()
