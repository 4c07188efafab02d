"""What `match` and `backtest` say about events, fields and topics that they did not use."""

import json
from pathlib import Path
from uuid import UUID

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.rules.yaml import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.unused_report import NothingRead, report_lines
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.mixed import column_of
from tests.support.logs import write_log


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def event(offset: int, topic: str = "mono.A", **fields: object) -> ConsumedRecord:
    body = {"timestamp": f"2026-03-01T10:00:{offset:02}Z"} | fields
    return ConsumedRecord(topic, 0, offset, 1_772_359_200_000, b"k", orjson.dumps(body))


def files(folder: Path, rules: str, *records: ConsumedRecord) -> list[str]:
    path = folder / "rules.yaml"
    path.write_text(rules)
    return [str(path), str(write_log(folder / "log.jsonl", records, partitions=1))]


HIGH = 'rules: [{name: high, seq: [{as: a, stream: A, where: "value > 3"}]}]'


def lines(result) -> list[str]:
    return result.stderr.splitlines()


def test_where_all_was_used_nothing_is_added(tmp_path):
    result = run("match", *files(tmp_path, HIGH, event(0, value=5)))
    assert lines(result) == ["1 multi events of 1 events (0 late, 0 unreadable)"]


def test_events_without_a_key_take_part_in_rules_by_null_and_are_not_said_to_be_unused(tmp_path):
    records = [ConsumedRecord(*event(offset, value=5)[:4], None, event(offset, value=5).value) for offset in range(3)]
    rejects = tmp_path / "rejects.jsonl"
    by_null = HIGH.replace("name: high", "name: high, by: null")
    result = run("match", *files(tmp_path, by_null, *records), "--rejects", str(rejects))
    assert lines(result)[0] == "3 multi events of 3 events (0 late, 0 unreadable)"
    assert not rejects.read_bytes()
    assert "took part in nothing" not in result.stderr


def test_a_field_that_never_came_is_named_with_the_one_that_was_meant(tmp_path):
    result = run("match", *files(tmp_path, HIGH, event(0, values=5)))
    assert lines(result)[1:] == ["field 'value' of A, which rule 'high' reads, never came; did you mean 'values'?"]


def test_a_field_that_came_without_a_value_is_said_to_be_null(tmp_path):
    result = run("match", *files(tmp_path, HIGH, event(0, value=None, other=1), event(1, value=None)))
    assert lines(result)[1:] == ["field 'value' of A, which rule 'high' reads, was always null"]


def test_a_topic_that_never_came_is_named_with_the_unread_ones(tmp_path):
    rules = "rules: [{name: two, within: 1m, seq: [{as: a, stream: A}, {as: b, stream: heating}]}]"
    result = run("match", *files(tmp_path, rules, event(0), event(0, "mono.heatings")))
    assert lines(result)[1:] == [
        "topic mono.heating, which rule 'two' reads, is not in the log; did you mean 'mono.heatings'?",
        "no rule reads the topics mono.heatings (1)",
    ]


def test_streams_that_no_rule_needs_are_not_worth_a_line(tmp_path):
    result = run("match", *files(tmp_path, HIGH, event(0, value=5), event(0, "mono.B")))
    assert len(lines(result)) == 1


@pytest.mark.parametrize("command", ["match", "backtest"])
def test_reading_nothing_is_an_error_that_says_what_is_there(tmp_path, command):
    arguments = files(tmp_path, HIGH, event(0, "metering"))
    with pytest.raises(NothingRead, match=r"it holds the topics metering \(1\) and the rules read mono\.A"):
        run(command, *arguments)


def test_a_log_without_messages_is_an_error(tmp_path):
    with pytest.raises(NothingRead, match=r"no messages; the rules read mono\.A"):
        run("match", *files(tmp_path, HIGH))


def test_events_of_a_repartitioned_stream_are_counted(tmp_path):
    rules = "rules: [{name: r, by: device, seq: [{as: a, stream: A}]}]"
    result = run("match", *files(tmp_path, rules, *(event(offset, device="d") for offset in range(5))))
    assert lines(result) == ["5 multi events of 5 events (0 late, 0 unreadable)"]


def test_a_field_that_changes_its_kind_from_chunk_to_chunk_is_reported(tmp_path):
    records = [event(offset % 60, value=5) for offset in range(256)]
    records += [event(offset % 60, value="high") for offset in range(256)]
    records = [record._replace(offset=offset) for offset, record in enumerate(records)]
    result = run("match", *files(tmp_path, HIGH, *records), "--lateness", "2m")
    assert (
        "field 'value' of A is of another kind than at first in 256 events, such as mono.A[0]@256: text after number"
        in (result.stderr)
    )


@pytest.mark.parametrize("by", ["key", "device", "null"])
def test_duplicates_are_in_the_summary_by_whatever_rules_correlate(tmp_path, by):
    rules = f"rules: [{{name: r, by: {by}, seq: [{{as: a, stream: A}}]}}]"
    twice = [event(0, event_id=str(UUID(int=1)), device="d")._replace(offset=offset) for offset in range(2)]
    result = run("match", *files(tmp_path, rules, *twice))
    assert lines(result)[0] == "1 multi events of 2 events (0 late, 0 unreadable, 1 duplicates)"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("form", ["json", "frames"])
def test_values_of_another_kind_are_counted_one_by_one_however_messages_are_divided(form, size):
    values = [None, 1, "a", 2.5, True, None, 2**63, [1], "b", {"c": 1}, -3]
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}], emit: {x: a.x}}]")
    domain = Domain(0, [DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"])
    times = [1_772_359_200_000_000 + number for number in range(len(values))]
    for first in range(0, len(values), size):
        part = slice(first, first + size)
        if form == "json":
            rows = zip(times[part], values[part], strict=True)
            records = [
                RawRecord(first + row, 0, b"k", orjson.dumps({"timestamp": time_us, "x": value}))
                for row, (time_us, value) in enumerate(rows)
            ]
        else:
            columns = {"timestamp": np.array(times[part]), "key": ["k"] * len(times[part])}
            frame = Frame.from_columns("A", "run", columns | {"x": column_of(values[part])}, first_seq=first)
            records = [RawRecord(first, 0, None, encode_frame(frame))]
        domain.feed("mono.A", records)
    (found,) = domain.unused
    assert (found[0], found[1], found[2], found[3].count) == ("kind", "A", "x", 5)
    row = "" if form == "json" else f" row {2 % size}"
    offset = 2 if form == "json" else 2 - 2 % size
    assert found[3].example == f"mono.A[0]@{offset}{row}: text after number"


def test_late_events_duplicates_and_dead_letters_are_listed_with_their_events(tmp_path):
    records = [
        event(0, value=5, event_id=str(UUID(int=1))),
        event(0, value=5, event_id=str(UUID(int=1)))._replace(offset=1),
        event(50, value=5)._replace(offset=2),
        event(2, value=5)._replace(offset=3),
        event(4)._replace(value=b"no json"),
    ]
    rejects = tmp_path / "rejects.jsonl"
    arguments = [*files(tmp_path, HIGH, *records), "--lateness", "1s"]
    result = run("match", *arguments, "--rejects", str(rejects))
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert sorted((each["cause"], each["offset"]) for each in found) == [
        ("dead_letter", 4), ("duplicate", 1), ("late", 3)
    ]  # fmt: skip
    assert "1 late event of mono.A, such as mono.A[0]@3 of 2026-03-01T10:00:02Z" in result.stderr
    assert "1 event of mono.A had the id of an event that came before, such as mono.A[0]@1" in result.stderr
    assert f"3 rejects written to {rejects}" in result.stderr
    body = json.loads(run("backtest", *arguments, "--json").stdout)
    assert {(each["cause"], each["count"]) for each in body["a"]["unused"]} == {
        ("dead", 1),
        ("duplicate", 1),
        ("late", 1),
    }
    assert len(body["a"]["notes"]) == 3


def test_a_declared_stream_that_is_repartitioned_is_counted_as_it_is_declared(tmp_path):
    path = tmp_path / "rooms.jsonl"
    bodies = [{"at": 1_759_055_400 + number, "room": "attic", "value": number} for number in range(9)]
    path.write_bytes(b"\n".join(orjson.dumps(body | {"floor": 1} if body["value"] > 2 else body) for body in bodies))
    rules = load_rules(
        "streams: [{name: rooms, time: {field: at, unit: s}, key: room}]\n"
        "rules: [{name: hot, by: floor, seq: [{as: a, stream: rooms, where: 'value > 7'}]}]"
    )
    run, outputs = run_rules(rules, [path], lateness_us=0)
    assert sum(len(output.multi_events) for output in outputs) == 1
    assert (run.counters.received, run.counters.dead) == (9, 0)
    assert report_lines(run) == [
        "3 events of rooms without 'floor', by which rules correlate, took part in nothing, such as mono.rooms[0]@0"
    ]


COUNTED = """
streams: [{name: A, decoder: debezium}]
validators: [{stream: A, sample: 0.5}]
rules: [{name: any, seq: [{as: a, stream: A}]}]
"""


@pytest.mark.parametrize("command", ["match", "backtest"])
def test_every_event_that_rules_did_not_see_is_in_the_counts(tmp_path, command):
    body = orjson.dumps({"op": "c", "after": {"v": 1}, "source": {"ts_ms": 1_772_359_200_000}})
    changes = [ConsumedRecord("mono.A", 0, offset, 0, b"k", body) for offset in range(20)]
    tombstones = [ConsumedRecord("mono.A", 0, offset, 0, b"k", None) for offset in (20, 21)]
    arguments = files(tmp_path, COUNTED, *changes, *tombstones)
    result = run(command, *arguments)
    said = next(line for line in (result.stdout + result.stderr).splitlines() if "unreadable" in line)
    processed = json.loads(run("backtest", *arguments, "--json").stdout)["a"]
    assert (processed["events"], processed["skipped"]) == (22, 2)
    assert 0 < processed["sampled"] < 20
    assert f"{processed['sampled']} sampled away, 2 tombstones" in said


def test_keys_in_different_partitions_of_joined_topics_are_reported(tmp_path):
    rules = "rules: [{name: both, within: 1m, all: [{as: a, stream: A}, {as: b, stream: B}]}]"
    records = [event(0, "mono.A"), event(1, "mono.B")._replace(partition=2, offset=0)]
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    log = tmp_path / "log.jsonl"
    with LogWriter(log, LogHeader({"mono.A": 1, "mono.B": 3})) as writer:
        for record in records:
            writer.write(record)
    (line,) = lines(run("match", str(path), str(log)))[1:]
    assert line.startswith("key 'k' is in partition 0 of mono.A (1 partitions) and in partition 2 of mono.B (3)")


def test_keys_in_one_partition_of_joined_topics_are_no_news(tmp_path):
    rules = "rules: [{name: both, within: 1m, all: [{as: a, stream: A}, {as: b, stream: B}]}]"
    records = [event(0, "mono.A")._replace(partition=1), event(0, "mono.B")._replace(partition=1)]
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    log = str(write_log(tmp_path / "log.jsonl", records, partitions=3))
    assert lines(run("match", str(path), log)) == ["1 multi events of 2 events (0 late, 0 unreadable)"]
