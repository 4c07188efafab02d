"""What `match` says about keys whose events lie in several partitions, and about messages without a key."""

from pathlib import Path

import orjson
import pytest

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter
from tests.support.logs import write_log
from tests.support.match_command import event, lines, run


def test_keys_in_different_partitions_of_joined_topics_are_reported(tmp_path):
    rules = "rules: [{name: both, within: 1m, all: [{as: a, stream: A}, {as: b, stream: B}]}]"
    records = [event(0, "mono.A"), event(1, "mono.B")._replace(partition=2, offset=0)]
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    log = str(write_log(tmp_path / "log.jsonl", records, partitions=3))
    matched, line = lines(run("match", str(path), log))
    assert matched.startswith("0 multi events of 2 events")
    assert line.startswith("key 'k' is in partition 0 of mono.A and in partition 2 of mono.B (of 3), so a rule over")
    assert "declare the key of both streams with partitioned: false" in line
    declared = "streams: [{name: %s, key: {field: key, partitioned: false}}, {name: %s, key: {partitioned: false}}]\n"
    path.write_text(declared % ("A", "B") + rules)
    assert lines(run("match", str(path), log)) == ["1 multi event of 2 events (0 late, 0 refused)"]


def test_keys_in_different_partitions_are_no_news_where_topics_have_different_numbers_of_them(tmp_path):
    rules = "rules: [{name: both, within: 1m, all: [{as: a, stream: A}, {as: b, stream: B}]}]"
    path, log = tmp_path / "rules.yaml", tmp_path / "log.jsonl"
    path.write_text(rules)
    with LogWriter(log, LogHeader({"mono.A": 1, "mono.B": 3})) as writer:
        writer.write(event(0, "mono.A"))
        writer.write(event(1, "mono.B")._replace(partition=2, offset=0))
    assert lines(run("match", str(path), str(log))) == ["1 multi event of 2 events (0 late, 0 refused)"]


def test_keys_in_one_partition_of_joined_topics_are_no_news(tmp_path):
    rules = "rules: [{name: both, within: 1m, all: [{as: a, stream: A}, {as: b, stream: B}]}]"
    records = [event(0, "mono.A")._replace(partition=1), event(0, "mono.B")._replace(partition=1)]
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    log = str(write_log(tmp_path / "log.jsonl", records, partitions=3))
    assert lines(run("match", str(path), log)) == ["1 multi event of 2 events (0 late, 0 refused)"]


VISITS = """
streams: [{name: clicks, topic: web.clicks, key: %s}]
rules: [{name: r, by: visitor, seq: [{as: a, stream: clicks}]}]
"""


def visits(folder: Path, key: str, *places: tuple[int, bytes | None]) -> list[str]:
    """A log of clicks, each with its partition (of two) and Kafka key."""
    records = []
    for number, (partition, kafka_key) in enumerate(places):
        body = orjson.dumps({"timestamp": f"2026-03-01T10:00:{number:02}Z", "visitor": f"v{partition}"})
        offset = sum(each.partition == partition for each in records)
        records.append(ConsumedRecord("web.clicks", partition, offset, 1_772_359_200_000, kafka_key, body))
    (folder / "rules.yaml").write_text(VISITS % key)
    return [str(folder / "rules.yaml"), str(write_log(folder / "log.jsonl", records, partitions=2))]


def test_messages_without_a_kafka_key_are_counted_with_what_to_declare(tmp_path):
    result = run("match", *visits(tmp_path, "visitor", (0, b"v"), (1, None), (0, None)))
    (line,) = lines(result)[1:]
    assert line.startswith("2 messages of web.clicks came without a Kafka key")
    assert "'key: {field: visitor, partitioned: false}'" in line
    assert line.endswith(("such as web.clicks[1]@0", "such as web.clicks[0]@1"))


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("visitor", [(0, b"v"), (0, b"v"), (1, b"w")]),
        ("visitor", [(0, None), (0, None)]),
        ("{field: visitor, partitioned: false}", [(0, None), (1, None)]),
        ("{field: visitor, partitioned: true}", [(0, None), (1, None)]),
    ],
    ids=["keys", "one partition", "repartitioned", "stated by the declaration"],
)
def test_messages_whose_events_meet_are_not_reported(tmp_path, key, places):
    assert lines(run("match", *visits(tmp_path, key, *places)))[1:] == []


REMEDY = "its producer partitions it by something else than order; declare 'key: {field: order, partitioned: false}'"


@pytest.mark.parametrize("partitioned", ["", ", partitioned: true"])
def test_keys_in_several_partitions_are_reported_also_where_the_declaration_denies_it(tmp_path, partitioned):
    rules = (
        f"streams: [{{name: orders, topic: shop.orders, key: {{field: order{partitioned}}}}}]\n"
        "rules: [{name: two, by: order, within: 1m, seq: [{as: a, stream: orders}, {as: b, stream: orders}]}]"
    )
    records = [
        ConsumedRecord(
            "shop.orders", (number + (number > 9)) % 2, number // 2, 1_772_359_200_000, b"k",
            orjson.dumps({"timestamp": f"2026-03-01T10:00:{number:02}Z", "order": number % 4}),
        )
        for number in range(20)
    ]  # fmt: skip
    path = write_log(tmp_path / "log.jsonl", sorted(records, key=lambda each: each.offset), partitions=2)
    (tmp_path / "rules.yaml").write_text(rules)
    result = run("match", str(tmp_path / "rules.yaml"), str(path))
    (line,) = lines(result)[1:]
    assert line.startswith("4 of 4 keys looked at have events in several partitions of shop.orders, which never meet")
    assert line.endswith("such as '0' in 0 and 1: " + REMEDY)
    declared = rules.replace("field: order" + partitioned, "field: order, partitioned: false")
    (tmp_path / "rules.yaml").write_text(declared)
    assert lines(run("match", str(tmp_path / "rules.yaml"), str(path)))[1:] == []
