"""What the roles of a worker count, as Prometheus metrics. All is read when it is asked for: an event costs nothing.

The label ``role`` is added to all of it (`pipeline.watch.role`), and docs/operations.md has a table of the names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from astrocyte.agents.ingest.decoders import RECOGNISE_FAILED
from astrocyte.agents.ingest.unused.counts import Unused

__all__ = [
    "DecoderMetrics",
    "DomainMetrics",
    "ReadingMetrics",
    "SnapshotFigures",
    "StoreMetrics",
    "UnusedMetrics",
    "queued_chunks",
]

SnapshotFigures = tuple[int, float, int, float, int]
"""Of the snapshots of a domain: partition, age in seconds, number, seconds that they took, bytes of the last one."""


class DomainMetrics:
    """Counters of every domain of a correlate worker, how far its event time lags behind, stalls, and snapshots.

    ``stalls`` gives what waits for event time that stands still (`pipeline.roles.stalls.Stall`), ``snapshots`` the
    figures of those that were stored.
    """

    def __init__(
        self,
        domains: Callable[[], dict[int, Any]],
        stalls: Callable[[], Iterable[Any]] = tuple,
        snapshots: Callable[[], Iterable[SnapshotFigures]] = tuple,
    ) -> None:
        self._domains_of = domains
        self._stalls_of = stalls
        self._snapshots_of = snapshots

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
        partial = GaugeMetricFamily(
            "astrocyte_partial_matches",
            "Partial matches, and events that wait for the others of their match",
            labels=("partition", "by"),
        )
        junctions = CounterMetricFamily(
            "astrocyte_junction",
            "Matches of the rules of each junction, and events that came over one that forms, by outcome",
            labels=("partition", "junction", "outcome"),
        )
        joined = GaugeMetricFamily(
            "astrocyte_junction_pairs",
            "Pairs of domains that a junction joins now",
            labels=("partition", "junction"),
        )
        left_out = CounterMetricFamily(
            "astrocyte_left_out",
            "Events left out while the worker was behind, by the policy of their stream",
            labels=("partition", "stream", "policy"),
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
            for stream, counts in domain.leaving_out.counts.items():
                for policy, value in counts.items():
                    left_out.add_metric((str(partition), stream, policy), value)
            if domain.watermark_us > 0:
                behind.add_metric((str(partition),), time.time() - domain.watermark_us / 1e6)
            for group in domain.groups:
                partial.add_metric((str(partition), group.field), group.engine.partials())
                for counted in (group.engine.junctions.counts, group.engine.gates.counts):
                    for name, counts in counted.items():
                        for outcome, value in counts.items():
                            junctions.add_metric((str(partition), name, outcome), value)
                for name, value in group.engine.gates.joined.items():
                    joined.add_metric((str(partition), name), value)
                for rule, counts in group.engine.counters().items():
                    for what, value in counts.items():
                        rules.add_metric((str(partition), rule, what), value)
        unused = _unused(domain.unused for domain in self._domains_of().values())
        families = (events, left_out, rules, junctions, joined, behind, waiting, partial, stalled, unused)
        return iter((*families, *self._of_snapshots()))

    def _of_snapshots(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "astrocyte_snapshot_age_seconds",
            "Age of the last stored snapshot of a domain that has changed since then, else 0",
            labels=("partition",),
        )
        cost = SummaryMetricFamily(
            "astrocyte_snapshot_seconds", "Snapshots, and the time they took", labels=("partition",)
        )
        size = GaugeMetricFamily("astrocyte_snapshot_bytes", "Size of the last snapshot", labels=("partition",))
        for partition, age_s, number, seconds, stored in self._snapshots_of():
            age.add_metric((str(partition),), age_s)
            cost.add_metric((str(partition),), number, seconds)
            size.add_metric((str(partition),), stored)
        yield from (age, cost, size)


class UnusedMetrics:
    """Counters of what a role did not use, and why."""

    def __init__(self, unused: Unused) -> None:
        self._counts = unused

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
    for labels, count in total.totals().items():
        family.add_metric(labels, count)
    return family


class DecoderMetrics:
    """Messages on which the ``recognise`` of a decoder failed, by the decoder's name."""

    def collect(self) -> Iterable[Metric]:
        """Messages by decoder."""
        family = CounterMetricFamily(
            "astrocyte_recognise_failed", "Messages on which a decoder's recognise failed", labels=("decoder",)
        )
        for name, count in list(RECOGNISE_FAILED.items()):
            family.add_metric((name,), count)
        return [family]


class StoreMetrics:
    """Rows that a store confirmed and rejected, the time of its writes, what waits for it, and what was not read."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def collect(self) -> Iterable[Metric]:
        """Rows by outcome, writes, the batch, and records by cause."""
        runner = self._runner
        rows = CounterMetricFamily("astrocyte_store_rows", "Rows by outcome", labels=("outcome",))
        rows.add_metric(("written",), runner.written)
        rows.add_metric(("rejected",), runner.rejected)
        writes = SummaryMetricFamily(
            "astrocyte_store_write_seconds", "Batches that the store took, and the time that took, with retries"
        )
        writes.add_metric((), runner.writes, runner.writes_s)
        batch = GaugeMetricFamily(
            "astrocyte_store_batch_rows", "Rows of the batch that is collected", value=runner.waiting
        )
        return [rows, writes, batch, _unused([runner.unused])]


class ReadingMetrics:
    """How far a role has read each partition, and what its queues hold. ``app`` is its Faust app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def collect(self) -> Iterable[Metric]:
        """Lag and held chunks by partition, and the lengths of the queues."""
        lag = GaugeMetricFamily("astrocyte_lag", "Records that are not read yet", labels=("topic", "partition"))
        held = GaugeMetricFamily(
            "astrocyte_held_chunks",
            "Chunks that were handed to the agent and are not acknowledged",
            labels=("topic", "partition"),
        )
        queues = GaugeMetricFamily("astrocyte_queue_length", "Entries of a queue", labels=("queue",))
        # Not app.consumer and app.producer, which would make them.
        consumer, confirmed = self._app._consumer, getattr(self._app._producer, "confirmed", None)
        for tp, position in sorted(consumer.positions().items()) if consumer is not None else ():
            lag.add_metric((tp.topic, str(tp.partition)), position.unread)
            held.add_metric((tp.topic, str(tp.partition)), position.held)
        queues.add_metric(("chunks",), queued_chunks(self._app))
        queues.add_metric(("unconfirmed",), 0 if confirmed is None else confirmed.unconfirmed)
        return [lag, held, queues]


def queued_chunks(app: Any) -> int:
    """Chunks in the queues of the agents of a Faust app, which these have not taken yet."""
    streams = [actor.stream for agent in app.agents.values() for actor in getattr(agent, "_actors", ())]
    return sum(stream.channel.queue.qsize() for stream in streams)
