"""A collector of OTLP over HTTP, which reads what it is sent by OpenTelemetry's own definitions of the messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "SpanSeen", "otlp_collector"]


@dataclass(frozen=True, slots=True)
class SpanSeen:
    """A span, with the attributes of its own and of its process."""

    name: str
    kind: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: tuple[str, ...]
    """Ids of the traces that it links to."""


@dataclass(slots=True)
class Collector:
    """What was delivered so far. ``status`` is answered to everything."""

    url: str = ""
    status: int = 200
    spans: list[SpanSeen] = field(default_factory=list)
    metrics: dict[tuple[str, str], tuple[str, dict[tuple[tuple[str, str], ...], float]]] = field(default_factory=dict)
    """By role and name: the kind, and the newest value by attributes."""
    headers: list[dict[str, str]] = field(default_factory=list)

    def take(self, path: str, body: bytes) -> None:
        """One request."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                of = _values(resource.resource.attributes)
                self.spans += [
                    SpanSeen(
                        span.name,
                        span.kind,
                        _values(span.attributes),
                        of,
                        tuple(link.trace_id.hex() for link in span.links),
                    )
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
            return
        assert path == "/v1/metrics", path
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            role = _values(resource.resource.attributes)["astrocyte.role"]
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                points = getattr(metric, kind).data_points
                found = {tuple(sorted(_values(point.attributes).items())): point.as_double for point in points}
                if kind == "sum":
                    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (True, 2), metric
                self.metrics[role, metric.name] = kind, found

    def values(self, role: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The newest values of a metric by attributes; empty if none has come."""
        return self.metrics.get((role, name), ("", {}))[1]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def otlp_collector() -> Iterator[Collector]:
    """A collector on a port of the loopback interface, on a thread of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.status == 200:
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.take(self.path, body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
