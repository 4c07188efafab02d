"""Spans of chunks and writes, and metrics as OTLP has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from opentelemetry.sdk.metrics.export import Gauge, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import StatusCode
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.telemetry import otlp, spans, start
from astrocyte.pipeline.transport.chunk import Chunk
from astrocyte.schemas.errors import InvalidSettings

FIRST, SECOND = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def seen():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.set_tracer(otlp._Spans(provider.get_tracer("tests"), "group-correlate"))
    yield exporter
    spans.set_tracer(None)


def chunk_of(*headers: tuple[str, bytes | None]) -> Chunk:
    records = [SimpleNamespace(offset=7 + at, headers=[header]) for at, header in enumerate(headers)]
    return Chunk("mono.A", 3, tuple(records), 7 + len(records), 99)


def test_a_chunk_links_to_the_spans_that_its_producers_name(seen):
    chunk = chunk_of(
        ("traceparent", f"00-{FIRST}-b7ad6b7169203331-01".encode()),
        ("ce_traceparent", f"00-{SECOND}-00f067aa0ba902b7-00".encode()),
        ("traceparent", f"00-{FIRST}-b7ad6b7169203331-01".encode()),
        ("traceparent", b"\xff no trace"),
        ("traceparent", None),
        ("other", b"1"),
    )
    with spans.chunk_span(chunk) as span:
        span.note(events=6)
    (found,) = seen.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in found.links] == [FIRST, SECOND]
    assert found.name == "process mono.A"
    assert dict(found.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mono.A",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "messaging.batch.message_count": 6,
        "messaging.consumer.group.name": "group-correlate",
        "astrocyte.events": 6,
    }


def test_a_chunk_of_many_producers_links_to_32_of_them(seen):
    headers = [("traceparent", f"00-{number:032x}-b7ad6b7169203331-01".encode()) for number in range(1, 100)]
    with spans.chunk_span(chunk_of(*headers)):
        pass
    (found,) = seen.get_finished_spans()
    assert [link.context.trace_id for link in found.links] == list(range(1, 33))


def test_what_raises_is_an_error_of_the_span(seen):
    with pytest.raises(OSError, match="the disk is full"), spans.write_span("sql", 12):
        raise OSError("the disk is full")
    (found,) = seen.get_finished_spans()
    assert (found.name, found.status.status_code) == ("write sql", StatusCode.ERROR)
    assert found.events[0].attributes["exception.message"] == "the disk is full"


def test_without_a_tracer_there_are_no_spans():
    chunk = chunk_of(("traceparent", b""))
    with spans.chunk_span(chunk) as span:
        span.note(events=1)
    assert spans.chunk_span(chunk) is spans.write_span("sql", 1)


def test_counters_are_sums_that_grow_and_all_else_gauges():
    counter = CounterMetricFamily("astrocyte_events", "Events", labels=("outcome",))
    counter.add_metric(("late",), 2)
    counter.add_metric(("dead",), 3)
    summary = SummaryMetricFamily("astrocyte_snapshot_seconds", "Snapshots", count_value=4, sum_value=1.5)
    gauge = GaugeMetricFamily("astrocyte_lag", "Lag", value=9)
    data = otlp.metrics_data([counter, summary, gauge], Resource({}), InstrumentationScope("tests"), 5)
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    found = {
        each.name: (type(each.data), [(dict(p.attributes), p.value) for p in each.data.data_points]) for each in metrics
    }
    assert found == {
        "astrocyte_events_total": (Sum, [({"outcome": "late"}, 2.0), ({"outcome": "dead"}, 3.0)]),
        "astrocyte_snapshot_seconds_count": (Sum, [({}, 4.0)]),
        "astrocyte_snapshot_seconds_sum": (Sum, [({}, 1.5)]),
        "astrocyte_lag": (Gauge, [({}, 9.0)]),
    }
    assert all(point.start_time_unix_nano == 5 for each in metrics for point in each.data.data_points)


def test_the_variables_of_opentelemetry_name_the_service(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=production,service.namespace=shop")
    found = otlp._resource("group", "sql").attributes
    names = ("service.name", "service.namespace", "deployment.environment.name", "astrocyte.role")
    assert [found[name] for name in names] == ["orders", "shop", "production", "sql"]


@pytest.mark.parametrize("text", ["0", "-5", "soon", "nan"])
def test_an_interval_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", text)
    with pytest.raises(
        InvalidSettings, match=f"OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds above 0, got '{text}'"
    ):
        otlp.Telemetry("http://127.0.0.1:1", "group", "sql", list)


def test_without_the_extra_the_setting_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "astrocyte.pipeline.telemetry.otlp", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'astrocyte\[otlp\]'"):
        start.started("http://127.0.0.1:1", "group", "sql", list)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:4318", "expected http:// or https:// with a host"),
        ("http://", "expected http:// or https:// with a host"),
        ("http://host:4318/?a=1", "expected http:// or https:// with a host"),
        ("http://me:geheim@host:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_an_address_that_is_none_is_refused(url, said):
    with pytest.raises(InvalidSettings, match=said) as caught:
        load_settings(otlp_url=url)
    assert "geheim" not in str(caught.value)
