"""Prometheus metrics of one worker on 127.0.0.1: counters of its domains or store, what was not used, delays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from astrocyte.agents.ingest.decoders import RECOGNISE_FAILED
from astrocyte.agents.ingest.unused import Unused
from astrocyte.pipeline.role_registry import role_names
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["DomainMetrics", "StoreMetrics", "UnusedMetrics", "serve_metrics"]


class DomainMetrics:
    """Counters of every domain of a correlate worker, how far its event time lags behind the wall clock, and stalls.

    ``stalls`` gives what waits for event time that stands still (`pipeline.roles.stalls.Stall`).
    """

    def __init__(self, domains: Callable[[], dict[int, Any]], stalls: Callable[[], Iterable[Any]] = tuple) -> None:
        self._domains_of = domains
        self._stalls_of = stalls

    def collect(self) -> Iterator[Metric]:
        """One sample for each counter and partition."""
        events = CounterMetricFamily("astrocyte_events", "Events by outcome", labels=("partition", "outcome"))
        rules = CounterMetricFamily("astrocyte_rule", "Counters of each rule", labels=("partition", "rule", "what"))
        behind = GaugeMetricFamily(
            "astrocyte_watermark_behind_seconds",
            "Wall-clock time minus the watermark of the domain",
            labels=("partition",),
        )
        waiting = GaugeMetricFamily(
            "astrocyte_waiting",
            "Rows that wait for the watermark, once for each reader",
            labels=("partition", "by"),
        )
        stalled = GaugeMetricFamily(
            "astrocyte_stalled_seconds",
            "For how long events have waited while event time stands still, and for which source",
            labels=("partition", "by", "topic", "origin", "why"),
        )
        for stall in self._stalls_of():
            labels = (str(stall.partition), stall.by, stall.topic, stall.origin, stall.why)
            stalled.add_metric(labels, time.time() - stall.since_us / 1e6)
        for partition, domain in self._domains_of().items():
            for group in domain.groups_time:
                waiting.add_metric((str(partition), group.field), group.waiting)
            for name, value in domain.counters.as_dict().items():
                events.add_metric((str(partition), name), value)
            if domain.watermark_us > 0:
                behind.add_metric((str(partition),), time.time() - domain.watermark_us / 1e6)
            for group in domain.groups:
                for rule, counts in group.engine.counters().items():
                    for what, value in counts.items():
                        rules.add_metric((str(partition), rule, what), value)
        return iter(
            (events, rules, behind, waiting, stalled, _unused(domain.unused for domain in self._domains_of().values()))
        )


class UnusedMetrics:
    """Counters of what a role did not use, and why."""

    def __init__(self, role: str, unused: Unused) -> None:
        self._role, self._counts = role, unused

    def collect(self) -> Iterable[Metric]:
        """One sample for each cause, subject and detail."""
        return [_unused([self._counts])]


def _unused(counts: Iterable[Unused]) -> Metric:
    total = Unused()
    for each in counts:
        total.merge(each)
    family = CounterMetricFamily(
        "astrocyte_unused", "Events and results that were not used", labels=("cause", "of", "detail")
    )
    for cause, subject, detail, found in total:
        family.add_metric((cause, subject, detail), found.count)
    return family


class _DecoderMetrics:
    """Messages on which the ``recognise`` of a decoder failed, by the decoder's name."""

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "astrocyte_recognise_failed", "Messages on which a decoder's recognise failed", labels=("decoder",)
        )
        for name, count in list(RECOGNISE_FAILED.items()):
            family.add_metric((name,), count)
        return [family]


class StoreMetrics:
    """Counters of the rows that a store confirmed and rejected, and of what was not read."""

    def __init__(self, role: str, runner: Any) -> None:
        self._role, self._runner = role, runner

    def collect(self) -> Iterable[Metric]:
        """Rows by outcome, and records by cause."""
        rows = CounterMetricFamily("astrocyte_store_rows", "Rows by outcome", labels=("role", "outcome"))
        rows.add_metric((self._role, "written"), self._runner.written)
        rows.add_metric((self._role, "rejected"), self._runner.rejected)
        return [rows, _unused([self._runner.unused])]


def serve_metrics(settings: Settings, role: str, collector: DomainMetrics | StoreMetrics | UnusedMetrics) -> int | None:
    """Serve ``/metrics``; returns the port, or None if ``metrics_port`` is not set.

    The roles of a worker are separate processes, so each has its own port: the setting plus its place in `role_names`.
    Raises InvalidSettings if the port is in use.
    """
    if settings.metrics_port is None:
        return None
    registry = CollectorRegistry()
    registry.register(collector)
    registry.register(_DecoderMetrics())
    port = settings.metrics_port + role_names().index(role) if settings.metrics_port else 0
    try:
        server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise InvalidSettings(
            f"the metrics of role {role!r} need port {port} of 127.0.0.1: {error.strerror}; set another "
            "ASTROCYTE_METRICS_PORT (each role adds its number to it)"
        ) from None
    return int(server.server_port)
