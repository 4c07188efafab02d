"""What `astrocyte health` says of the last reports of the domains."""

from __future__ import annotations

import orjson
import pytest

from astrocyte import load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.overload import Interval
from astrocyte.agents.ingest.unused.counts import Unused
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.pipeline.roles.health import correlate_summary, remedy
from astrocyte.pipeline.roles.output_records import stats_record
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.topics import unstored_streams
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.json.reader import RawRecord

HOUR_MS = 3_600_000
NOW_MS = 1_772_359_200_000


def event(offset: int, key: str, time_ms: int) -> RawRecord:
    body = {"timestamp": time_ms * 1000, "key": key, "type": "x", "value": 1}
    return RawRecord(offset, NOW_MS, key.encode(), orjson.dumps(body))


def test_events_that_wait_for_the_check_of_clocks_are_counted_and_explained():
    """They are in no other count, and their messages are acknowledged, so that they are no lag either."""
    domain = Domain(0, [], topics=["mono.A"])
    domain.feed("mono.A", [event(0, "a", NOW_MS), *(event(n, "fast", NOW_MS + 8000 * HOUR_MS) for n in range(1, 4))])
    report = orjson.loads(stats_record("correlate", domain, [], 1).value or b"")
    found = correlate_summary([report], {})
    assert found["waiting"] == 3
    assert report["received"] + found["waiting"] == 4
    assert len(found["waits"]) == 1
    assert found["waits"][0].startswith("mono.A: 3 events are further ahead of Kafka's time")
    assert "they wait" in found["waits"][0]


def test_keys_with_events_in_several_partitions_are_found_in_the_reports_of_their_domains():
    def report(partition: int, *keys: str) -> dict[str, object]:
        rules = load_rules("rules: [{name: r, by: key, seq: [{as: a, stream: A}]}]")
        group = DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})
        domain = Domain(partition, [group], topics=["mono.A"], placed_by={"mono.A": "key"})
        domain.feed("mono.A", [event(offset, key, NOW_MS) for offset, key in enumerate(keys)])
        return orjson.loads(stats_record("correlate", domain, [], 1).value or b"")

    assert correlate_summary([report(0, "a", "b"), report(1, "c", "d")], {})["lines"] == []
    (line,) = correlate_summary([report(0, "a", "b"), report(2, "c", "b")], {})["lines"]
    assert line.startswith("1 of 3 keys looked at have events in several partitions of mono.A, which never meet")
    older = {name: value for name, value in report(1, "b").items() if name not in ("keys", "partition")}
    assert correlate_summary([report(0, "b"), older], {})["lines"] == []


def test_counts_say_of_when_the_newest_of_them_are():
    domain = Domain(0, [], topics=["mono.A"])
    reports = [orjson.loads(stats_record("correlate", domain, [], now).value or b"") for now in (5_000_000, 2_000_000)]
    assert correlate_summary(reports, {})["reported"] == "1970-01-01T00:00:05Z"
    assert correlate_summary([], {})["reported"] is None


def test_the_share_of_retracted_matches_of_each_eventual_rule_is_said():
    rules = load_rules("""
rules:
  - {name: fast, consistency: eventual, within: 9h, seq: [{as: a, stream: A}, {not: {stream: A}}, {as: b, stream: B}]}
  - {name: sure, within: 9h, seq: [{as: a, stream: A}, {as: b, stream: B}]}
""")
    reports = []
    for partition in range(2):
        group = DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A", "B": "mono.B"})
        domain = Domain(partition, [group], topics=["mono.A", "mono.B"], lateness_us=1_000_000)
        domain.feed("mono.A", [event(0, "k", NOW_MS)])
        domain.feed("mono.B", [event(0, "k", NOW_MS + 3)])
        domain.feed("mono.B", [event(1, "k", NOW_MS + 2)])
        domain.feed("mono.A", [event(1, "k", NOW_MS + 9 * HOUR_MS // 10)])
        domain.feed("mono.B", [event(2, "k", NOW_MS + 9 * HOUR_MS // 10)])
        reports.append(orjson.loads(stats_record("correlate", domain, [], 1).value or b""))
    found = correlate_summary(reports, {})
    counts = found["corrections"]["fast"]
    assert found["corrections"].keys() == {"fast"}
    assert counts["provisional"] == counts["confirmed"] + counts["retracted"] + 2, "one of each domain is open"
    assert counts["retracted"] == 2
    (line,) = [line for line in found["lines"] if "made on arrival" in line]
    share = counts["retracted"] / counts["provisional"]
    retracted = f"of which 2 ({share:.1%}) were retracted and 2 are not decided yet"
    assert line == f"matches of rule 'fast' made on arrival: {counts['provisional']}, {retracted}"


def test_events_that_are_late_in_a_stream_and_in_its_copy_are_counted_once():
    def report(**late: int) -> dict[str, object]:
        unused = Unused()
        for topic, count in late.items():
            unused.add("late", topic, f"{topic}[0]@1", count=count)
        return {"unused": unused.as_json(), "copies": {"keyed": "original"}}

    found = correlate_summary([report(original=3, keyed=2), report(original=1, keyed=2)], {})
    assert found["lines"] == ["4 late events of original, such as original[0]@1"]
    assert [(each["of"], each["count"]) for each in found["unused"]] == [("original", 4)]
    only_there = correlate_summary([report(original=3, keyed=5)], {})["lines"]
    assert only_there == [
        "3 late events of original, such as original[0]@1",
        "5 late events of keyed, such as keyed[0]@1",
    ]


def test_tombstones_that_were_skipped_are_shown():
    declared = Contracts(load_rules("streams: [{name: orders, decoder: debezium, topic: orders}]").streams)
    domain = Domain(0, [], topics=["orders"], decoders=Decoders(declared))
    body = {"op": "c", "before": None, "after": {"id": 1}, "source": {"ts_ms": NOW_MS}, "ts_ms": NOW_MS}
    tombstones = [RawRecord(offset, NOW_MS, b'{"id":1}', None) for offset in (1, 2)]
    domain.feed("orders", [RawRecord(0, NOW_MS, b'{"id":1}', orjson.dumps(body)), *tombstones])
    report = orjson.loads(stats_record("correlate", domain, [], 1).value or b"")
    found = correlate_summary([report, report], {})
    assert (found["skipped"], found["lines"]) == (4, ["4 tombstones skipped"])
    assert correlate_summary([], {})["lines"] == []


def test_what_was_left_out_is_shown_by_stream_and_policy():
    domain = Domain(0, [], topics=["mono.S"])
    domain.leaving_out.schedule("mono.S").add(Interval(1, 3, "drop_oldest"))
    body = orjson.dumps({"timestamp": NOW_MS, "key": "k"})
    domain.feed("mono.S", [RawRecord(offset, NOW_MS, b"k", body) for offset in range(4)])
    report = orjson.loads(stats_record("correlate", domain, [], 1).value or b"")
    assert (report["received"], report["processed"], report["sampled"]) == (4, 2, 2)
    found = correlate_summary([report, report], {})
    assert found["left_out"] == {"S": {"drop_oldest": 4}}
    assert found["lines"] == ["left out of stream 'S' while the worker was behind: 4 by drop_oldest"]


@pytest.mark.parametrize(
    ("state", "members", "lag", "said"),
    [
        ("Stable", 2, 0, ""),
        ("Stable", 2, 7, "If the lag grows, start more workers"),
        ("Stable", 1, None, "nothing is committed yet: wait"),
        ("Empty", 0, 7, "no worker runs this role; start one: astrocyte worker --role sql."),
        ("Empty", 0, None, "no worker of this role has read anything in the group 'g'; start one"),
        ("Dead", 0, None, "or set the ASTROCYTE_GROUP of those that run"),
        ("PreparingRebalance", 2, 0, "partitions are being divided: wait"),
        ("CompletingRebalance", 2, 7, "look in the logs for a worker that starts again and again"),
        ("Unknown", 2, 7, "the broker says 'Unknown' of this group"),
    ],
)
def test_each_state_of_a_group_comes_with_what_to_do(state, members, lag, said):
    found = remedy("sql", "g", {"state": state, "members": members, "lag": lag})
    assert (said in found) if said else not found


@pytest.mark.parametrize(
    ("role", "reason"),
    [("influx", "it has no measurement, whose fields have the types of the catalog"), ("sql", "it has no table")],
)
def test_a_sink_names_the_streams_of_the_settings_of_which_it_writes_nothing(role, reason):
    (line,) = unstored_streams(Settings(streams=("A", "population_metrics")), SINKS.get(role))
    assert line.startswith("ASTROCYTE_STREAMS names stream 'A', of which nothing is written here: " + reason)
    assert unstored_streams(Settings(), SINKS.get(role)) == []


@pytest.mark.parametrize("role", ["file", "audit"])
def test_a_sink_that_writes_any_stream_or_chooses_its_own_names_none(role):
    assert unstored_streams(Settings(streams=("A",)), SINKS.get(role)) == []
