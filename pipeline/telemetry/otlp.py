"""Delivery of spans and metrics to an OpenTelemetry collector, over OTLP with protobuf and HTTP.

The address is a setting; all else are the variables that OpenTelemetry specifies, such as
``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_TRACES_SAMPLER`` and ``OTEL_RESOURCE_ATTRIBUTES``, which its SDK reads itself.
What a collector does not take is dropped: the pipeline never waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http import metric_exporter, trace_exporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client.core import Metric as Family

from astrocyte.pipeline.telemetry.spans import Attributes, Kind, Span, set_tracer
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Telemetry", "metrics_data"]

logger = logging.getLogger(__name__)

_SCOPE: Final = "astrocyte"
_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
_INTERVAL_MS: Final = 60_000
"""Default of the specification."""
_STOP_MS: Final = 2_000
"""How long the end of a role waits for the collector to take the last spans and metrics."""
_KINDS: Final = {"consumer": SpanKind.CONSUMER, "client": SpanKind.CLIENT}
_TRACE_CONTEXT: Final = TraceContextTextMapPropagator()


class Telemetry:
    """What a role's process delivers, from its start until `stop`. Raises InvalidSettings."""

    def __init__(self, url: str, group: str, role: str, families: Callable[[], Iterable[Family]]) -> None:
        """``families`` gives all metrics of the process; it is called on a thread of this object."""
        interval_s = _interval_s()
        resource = _resource(group, role)
        self._families = families
        self._scope = InstrumentationScope(_SCOPE, version("astrocyte"))
        self._resource = resource
        self._began_ns = time.time_ns()
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_SpanExporter(url)))
        self._metrics = OTLPMetricExporter(endpoint=f"{url}/v1/metrics")
        self._notice = _Notice(url, "metrics", metric_exporter.__name__)
        self._ended = threading.Event()
        set_tracer(_Spans(self._provider.get_tracer(_SCOPE, self._scope.version), f"{group}-{role}"))
        self._thread = threading.Thread(target=self._run, args=(interval_s,), name="otlp", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Deliver what is left, for two seconds at most."""
        set_tracer(None)
        self._ended.set()
        last = threading.Thread(target=self._deliver_rest, name="otlp-end", daemon=True)
        last.start()
        last.join(_STOP_MS / 1000)

    def _deliver_rest(self) -> None:
        self._provider.force_flush(_STOP_MS)
        self._provider.shutdown()
        self._thread.join()

    def _run(self, interval_s: float) -> None:
        while not self._ended.wait(interval_s):
            self._deliver()
        self._deliver()
        self._metrics.shutdown(timeout_millis=_STOP_MS)

    def _deliver(self) -> None:
        try:
            data = metrics_data(self._families(), self._resource, self._scope, self._began_ns)
            self._notice.delivered(self._metrics.export(data) is MetricExportResult.SUCCESS)
        except Exception:
            logger.exception("metrics cannot be delivered over OTLP")


class _SpanExporter(OTLPSpanExporter):
    """Notices whether the collector takes spans."""

    def __init__(self, url: str) -> None:
        super().__init__(endpoint=f"{url}/v1/traces")
        self._notice = _Notice(url, "spans", trace_exporter.__name__)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self._notice.delivered(result is SpanExportResult.SUCCESS)
        return result


class _Notice(logging.Filter):
    """Says once that a collector takes nothing, and once that it does again, in place of a line for each attempt."""

    def __init__(self, url: str, what: str, exporter: str) -> None:
        """``exporter`` names the logger of the exporter, whose lines give the reason."""
        super().__init__()
        self._url, self._what = url, what
        self._reason = ""
        self._failing = False
        logging.getLogger(exporter).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        # The first line of a delivery has the cause, the last one that all attempts have failed.
        self._reason = self._reason or record.getMessage().partition(" encountered while")[0]
        return False

    def delivered(self, taken: bool) -> None:
        """Whether it took the last delivery."""
        reason, self._reason = self._reason, ""
        if taken != self._failing:
            return
        self._failing = not taken
        if taken:
            logger.warning("the OTLP collector at %s takes %s again", self._url, self._what)
        else:
            logger.warning(
                "the OTLP collector at %s takes no %s, which are dropped until it does: %s",
                self._url, self._what, reason,
            )  # fmt: skip


class _Spans:
    """Spans of OpenTelemetry's SDK, of a member of a Kafka consumer group."""

    def __init__(self, tracer: Any, consumer_group: str) -> None:
        self._tracer = tracer
        self._own = {"messaging.consumer.group.name": consumer_group}

    @contextmanager
    def span(self, name: str, kind: Kind, attributes: Attributes, parents: Sequence[str] = ()) -> Iterator[Span]:
        links = [Link(context) for context in map(_context_of, parents) if context is not None]
        if kind == "consumer":
            attributes = {**attributes, **self._own}
        with self._tracer.start_as_current_span(name, kind=_KINDS[kind], attributes=attributes, links=links) as span:
            yield _Span(span)


class _Span:
    def __init__(self, span: Any) -> None:
        self._span = span

    def note(self, **attributes: int) -> None:
        self._span.set_attributes({f"astrocyte.{name}": value for name, value in attributes.items()})


def _context_of(parent: str) -> SpanContext | None:
    """The span that a header names; None where it is not in the form of W3C Trace Context."""
    found = get_current_span(_TRACE_CONTEXT.extract({"traceparent": parent})).get_span_context()
    if not found.is_valid:
        return None
    return SpanContext(found.trace_id, found.span_id, is_remote=True, trace_flags=TraceFlags(found.trace_flags))


def _resource(group: str, role: str) -> Resource:
    """What the spans and metrics are of; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` have the last word."""
    ours: dict[str, str | int] = {
        "service.name": "astrocyte",
        "service.namespace": group,
        "service.version": version("astrocyte"),
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
        "astrocyte.role": role,
    }
    return Resource.create({**ours}).merge(OTELResourceDetector().detect())


def _interval_s() -> float:
    text = os.environ.get(_INTERVAL, "") or str(_INTERVAL_MS)
    try:
        interval_ms = float(text)
    except ValueError:
        interval_ms = 0
    if not interval_ms > 0:
        raise InvalidSettings(f"{_INTERVAL}: expected milliseconds above 0, got {text!r}")
    return interval_ms / 1000


def metrics_data(
    families: Iterable[Family], resource: Resource, scope: InstrumentationScope, began_ns: int
) -> MetricsData:
    """The families of ``/metrics``, by the same names: counters are cumulative sums, all else gauges."""
    now_ns = time.time_ns()
    metrics = [
        Metric(name, family.documentation, family.unit, _data(points, monotonic))
        for family in families
        for name, monotonic, points in _points(family, began_ns, now_ns)
    ]
    scopes = [ScopeMetrics(scope, metrics, "")]
    return MetricsData([ResourceMetrics(resource, scopes, "")])


def _points(family: Family, began_ns: int, now_ns: int) -> Iterator[tuple[str, bool, list[NumberDataPoint]]]:
    """The samples of a family by name, and whether they only grow."""
    by_name: dict[str, list[NumberDataPoint]] = {}
    for sample in family.samples:
        labels: Mapping[str, Any] = sample.labels
        by_name.setdefault(sample.name, []).append(NumberDataPoint(labels, began_ns, now_ns, float(sample.value)))
    for name, points in by_name.items():
        yield name, family.type in ("counter", "summary"), points


def _data(points: list[NumberDataPoint], monotonic: bool) -> Sum | Gauge:
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if monotonic else Gauge(points)
