"""The metrics of roles: what they count, and that the documentation lists all of them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.overload import Interval
from astrocyte.agents.ingest.unused.counts import Unused
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline import metrics
from astrocyte.pipeline.kafka.partition_end import Position
from astrocyte.pipeline.roles.stalls import Stall
from astrocyte.pipeline.watch.children import Restarts
from astrocyte.pipeline.watch.progress import ProgressWatch
from astrocyte.pipeline.watch.role import RoleWatch, metrics_of
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord

RULES = load_rules(
    "rules: [{name: one, within: 1s, seq: [{as: a, stream: axon_1}, {as: b, stream: axon_1}]},"
    "{name: two, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2}]}]"
)
POSITION = Position(placed=True, read=7, unread=5, held=2, acknowledged=3, acks=1, paused=False, answered=True)
ROOT = Path(__file__).parents[3]


def domain_metrics() -> metrics.DomainMetrics:
    topics = {"axon_1": "mono.axon_1", "axon_2": "mono.axon_2"}
    engine = Engine(RULES)
    domain = Domain(3, [DomainGroup("key", engine, topics)], topics=topics.values())
    domain.counters.processed = 7
    stall = Stall(3, "key", "mono.axon_1", "", "never", "nothing has come", 5, 0, 0)
    return metrics.DomainMetrics(lambda: {3: domain}, lambda: [stall], lambda: [(3, 1.5, 4, 0.25, 1000)])


def store_metrics() -> metrics.StoreMetrics:
    unused = Unused()
    unused.add("dead", "mono.A", "mono.A[0]@5: no", detail="sql", count=3)
    return metrics.StoreMetrics(
        SimpleNamespace(written=5, rejected=1, writes=2, writes_s=0.5, waiting=9, unused=unused)
    )


def reading_metrics() -> metrics.ReadingMetrics:
    place = SimpleNamespace(topic="mono.A", partition=1)
    queue = SimpleNamespace(qsize=lambda: 4)
    actor = SimpleNamespace(stream=SimpleNamespace(channel=SimpleNamespace(queue=queue)))
    return metrics.ReadingMetrics(
        SimpleNamespace(
            _consumer=SimpleNamespace(positions=lambda: _Positions(place)),
            _producer=SimpleNamespace(confirmed=SimpleNamespace(unconfirmed=6)),
            agents={"a": SimpleNamespace(_actors=[actor])},
        )
    )


class _Positions:
    def __init__(self, place) -> None:
        self._place = place

    def items(self):
        return [(self._place, POSITION)]


def samples(*collectors) -> dict[str, float]:
    """Values by name and labels, as any Prometheus reads them."""
    found = {}
    for family in text_string_to_metric_families(metrics_of(collectors, "sql")):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "role"}
            assert sample.labels["role"] == "sql"
            found[f"{sample.name} {' '.join(labels.values())}".strip()] = sample.value
    return found


def test_counters_of_every_domain_are_served():
    found = samples(domain_metrics())
    assert found["astrocyte_events_total processed 3"] == 7.0
    assert found["astrocyte_snapshot_age_seconds 3"] == 1.5
    assert (found["astrocyte_snapshot_seconds_count 3"], found["astrocyte_snapshot_seconds_sum 3"]) == (4, 0.25)
    assert found["astrocyte_snapshot_bytes 3"] == 1000
    assert {name for name in found if name.startswith("astrocyte_rule_total 3 one ")}


def test_what_was_left_out_is_counted_by_stream_and_policy():
    domain = Domain(3, [], topics=["mono.S"])
    domain.leaving_out.schedule("mono.S").add(Interval(0, 2, "latest"))
    domain.feed("mono.S", [RawRecord(number, 0, b"k", b'{"timestamp": 1750000000000}') for number in range(2)])
    found = samples(metrics.DomainMetrics(lambda: {3: domain}, list, list))
    assert (found["astrocyte_left_out_total 3 latest S"], found["astrocyte_events_total sampled 3"]) == (1.0, 1.0)


def test_partial_matches_of_both_operators_are_counted():
    engine = Engine(RULES)
    columns = {"timestamp": [1_000_000, 1_000_001], "key": ["a", "b"]}
    engine.push(Frame.from_columns("axon_1", "run", columns))
    engine.advance(1_500_000)
    # Two keys have a first event of the sequence and one half of the conjunction.
    assert engine.partials() == 4
    engine.flush()
    assert engine.partials() == 0


def test_rows_and_writes_of_a_store_are_served():
    found = samples(store_metrics())
    assert found["astrocyte_unused_total dead sql mono.A"] == 3.0
    assert found["astrocyte_store_rows_total written"] == 5.0
    assert (found["astrocyte_store_write_seconds_count"], found["astrocyte_store_write_seconds_sum"]) == (2, 0.5)
    assert found["astrocyte_store_batch_rows"] == 9


def test_lag_held_chunks_and_queues_are_served():
    found = samples(reading_metrics())
    assert (found["astrocyte_lag 1 mono.A"], found["astrocyte_held_chunks 1 mono.A"]) == (5, 2)
    assert (found["astrocyte_queue_length chunks"], found["astrocyte_queue_length unconfirmed"]) == (4, 6)


def test_messages_on_which_a_recogniser_failed_are_served(monkeypatch):
    monkeypatch.setitem(metrics.RECOGNISE_FAILED, "hive", 4)
    assert samples(metrics.DecoderMetrics()) == {"astrocyte_recognise_failed_total hive": 4.0}


def test_a_role_that_has_not_begun_to_read_has_no_lag():
    app = SimpleNamespace(_consumer=None, _producer=None, agents={})
    assert samples(metrics.ReadingMetrics(app)) == {
        "astrocyte_queue_length chunks": 0,
        "astrocyte_queue_length unconfirmed": 0,
    }


def test_the_documentation_lists_every_metric_with_its_kind_and_labels():
    watch = RoleWatch("sql", ProgressWatch(1.0, 1.0))
    collectors = [domain_metrics(), store_metrics(), reading_metrics(), metrics.DecoderMetrics(), watch, Restarts()]
    made = {}
    for collector in collectors:
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} | set(
                getattr(family, "_labelnames", ())
            )
            made[name] = (family.type, labels - {"role"})
    page = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(astrocyte_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    listed = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(rows) == len(listed), "a metric is listed twice"
    assert listed == made
