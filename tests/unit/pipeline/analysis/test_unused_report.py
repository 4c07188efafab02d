"""What `match` and `backtest` say about events, fields and topics that they did not use."""

import json
from pathlib import Path
from uuid import UUID

import numpy as np
import orjson
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest import decoders
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.problems import InvalidRules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.unused_report import NothingRead, report_lines
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.schemas.catalog import CATALOG, EventType
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.values.mixed import column_of
from tests.support.match_command import HIGH, event, files, lines, run


def test_every_late_event_is_among_the_rejects_also_with_the_id_of_another(tmp_path):
    rules = (
        "streams: [{name: A, id: id}, {name: B, id: id}]\n"
        "rules: [{name: both, by: who, within: 9s, all: [{as: a, stream: A}, {as: b, stream: B}]}]"
    )
    same = "11111111-1111-4111-8111-111111111112"
    records = [
        ConsumedRecord(
            f"mono.{stream}", 0, offset, 1_772_359_200_000, b"k",
            orjson.dumps({"timestamp": f"2026-03-01T10:00:{second:02}Z", "id": name, "who": "w"}),
        )
        for stream in "AB"
        for offset, (second, name) in enumerate([(30, f"{stream}0"), (2, same), (2, same), (3, f"{stream}1")])
    ]  # fmt: skip
    rejects = tmp_path / "rejects.jsonl"
    result = run("match", *files(tmp_path, rules, *records), "--rejects", str(rejects))
    assert "(6 late, 0 refused)" in result.stderr
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(each["topic"], each["offset"]) for each in found] == [
        (f"mono.{stream}", offset) for stream in "AB" for offset in (1, 2, 3)
    ]


def test_where_all_was_used_nothing_is_added(tmp_path):
    result = run("match", *files(tmp_path, HIGH, event(0, value=5)))
    assert lines(result) == ["1 multi event of 1 event (0 late, 0 refused)"]


def test_events_without_a_key_take_part_in_rules_by_null_and_are_not_said_to_be_unused(tmp_path):
    records = [ConsumedRecord(*event(offset, value=5)[:4], None, event(offset, value=5).value) for offset in range(3)]
    rejects = tmp_path / "rejects.jsonl"
    by_null = HIGH.replace("name: high", "name: high, by: null")
    result = run("match", *files(tmp_path, by_null, *records), "--rejects", str(rejects))
    assert lines(result)[0] == "3 multi events of 3 events (0 late, 0 refused)"
    assert not rejects.read_bytes()
    assert "took part in none of the rules" not in result.stderr


def test_a_recogniser_that_fails_is_named_in_the_runs_in_which_it_failed(tmp_path, monkeypatch):
    def broken(_value):
        raise ValueError("a bug")

    given = files(tmp_path, HIGH, event(0, value=5))
    with monkeypatch.context() as patch:
        registry = decoders.Registry("decoder", group="no.such.group", shipped={"json": decoders.JSON})
        patch.setattr(decoders, "DECODERS", registry)
        decoders.register_decoder("hive", lambda _message: {}, recognise=broken)
        for _ in range(2):
            assert lines(run("match", *given))[1:] == [
                "recognise of decoder 'hive' failed on 1 message, which it did not read"
            ]
    assert lines(run("match", *given))[1:] == []


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
def test_the_descriptions_of_runs_that_a_log_holds_are_not_worth_a_line(tmp_path, command):
    result = run(command, *files(tmp_path, HIGH, event(0, value=5), event(0, "simulations")))
    assert not [line for line in lines(result) if "simulations" in line]


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
    assert lines(result) == ["5 multi events of 5 events (0 late, 0 refused)"]


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
    assert lines(result)[0] == "1 multi event of 2 events (0 late, 0 refused, 1 duplicate)"


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
                RawRecord(first + row, 1_772_359_200_000, b"k", orjson.dumps({"timestamp": time_us, "x": value}))
                for row, (time_us, value) in enumerate(rows)
            ]
        else:
            columns = {"timestamp": np.array(times[part]), "key": ["k"] * len(times[part])}
            frame = Frame.from_columns("A", "run", columns | {"x": column_of(values[part])}, first_seq=first)
            records = [RawRecord(first, 1_772_359_200_000, None, encode_frame(frame))]
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


def test_a_late_event_is_listed_with_the_watermark_that_made_it_late(tmp_path):
    records = [event(second)._replace(offset=offset) for offset, second in enumerate([10, 30, 20, 50, 40, 59])]
    rejects = tmp_path / "rejects.jsonl"
    run("match", *files(tmp_path, HIGH, *records), "--lateness", "2s", "--rejects", str(rejects))
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    start_us = 1_772_359_200_000_000
    assert [(each["offset"], each["watermark_us"] - start_us) for each in found] == [(2, 28_000_000), (4, 48_000_000)]


def test_events_of_a_keyed_stream_take_part_in_rules_without_a_key(tmp_path):
    result = run("match", *files(tmp_path, in_unit("s"), at(0, 1_764_408_608)))
    assert lines(result) == ["1 multi event of 1 event (0 late, 0 refused)"]


def in_unit(unit: str, by: str = "null") -> str:
    declaration = f"{{name: A, time: {{field: at, unit: {unit}}}, key: room}}"
    return f"streams: [{declaration}]\nrules: [{{name: r, by: {by}, seq: [{{as: a, stream: A}}]}}]"


def at(number: int, time: object) -> ConsumedRecord:
    return event(0, at=time, room="attic")._replace(offset=number)


@pytest.mark.parametrize("by", ["null", "room", "floor"])
def test_a_declared_unit_that_dates_events_before_1980_is_doubted_in_one_line(tmp_path, by):
    records = [at(number, 1_764_408_608_004 + number) for number in range(3)]
    result = run("match", *files(tmp_path, in_unit("us", by), *records))
    (line,) = [line for line in lines(result) if "1970" in line]
    assert line == (
        "3 events of A, whose time is declared in us, dated before 1980, such as mono.A[0]@0 of "
        "1970-01-21T10:06:48.608004Z; did you mean unit: ms?"
    )
    (tmp_path / "log.jsonl").unlink()
    right = run("match", *files(tmp_path, in_unit("ms", by), *records))
    assert not [line for line in lines(right) if "unit" in line]


def test_a_time_outside_its_declared_unit_is_refused_with_the_value_that_came(tmp_path):
    records = [at(0, 1_764_408_608_004), at(1, "1764408608004"), at(2, -5), at(3, 1_764_408_608)]
    rejects = tmp_path / "rejects.jsonl"
    run("match", *files(tmp_path, in_unit("s"), *records), "--rejects", str(rejects))
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    wanted = "in s is not between the years 1970 and 2100"
    fitting = "; in ms it is 2025-11-29T09:30:08.004000Z"
    assert [(each["offset"], each["reason"]) for each in found] == [
        (0, f"timestamp 1764408608004 {wanted}{fitting}"),
        (1, f"timestamp '1764408608004' {wanted}{fitting}"),
        (2, f"timestamp -5 {wanted}"),
    ]


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
        "3 events of rooms without 'floor' took part in none of the rules that correlate by it, such as mono.rooms[0]@0"
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
    said = next(line for line in (result.stdout + result.stderr).splitlines() if "refused" in line)
    processed = json.loads(run("backtest", *arguments, "--json").stdout)["a"]
    assert (processed["events"], processed["skipped"]) == (22, 2)
    assert 0 < processed["sampled"] < 20
    assert f"{processed['sampled']} sampled away, 2 tombstones" in said


def event_file(folder: Path, text: str) -> list[str]:
    (folder / "rules.yaml").write_text(HIGH)
    (folder / "events.json").write_text(text)
    return [str(folder / "rules.yaml"), str(folder / "events.json")]


ROW = '{"timestamp": "2026-03-01T10:00:00Z", "key": "k", "value": 5}'


@pytest.mark.parametrize(
    "text",
    [f"[{ROW}]", f"[\n{ROW},\n{ROW}\n]\n", json.dumps(json.loads(ROW), indent=2) + "\n"],
    ids=["array in one line", "array", "indented"],
)
@pytest.mark.parametrize("command", ["match", "backtest"])
def test_a_file_of_json_that_is_not_one_object_a_line_is_refused_with_what_to_do(tmp_path, command, text):
    with pytest.raises(InvalidLog, match=r"events\.json: .*; expected one JSON object a line"):
        run(command, *event_file(tmp_path, text))


def test_lines_with_commas_between_them_are_refused_one_by_one(tmp_path):
    said = run("match", *event_file(tmp_path, f"{ROW},\n{ROW}\n"))
    assert len(said.stdout.splitlines()) == 1
    assert "refused (decode)" in said.stderr


def test_late_events_are_said_with_the_option_that_allows_for_them(tmp_path):
    times = [event(number) for number in (0, 30, 1)]
    records = [each._replace(offset=number) for number, each in enumerate(times)]
    result = run("match", *files(tmp_path, HIGH.replace("value > 3", "true"), *records), "--lateness", "1s")
    (line,) = [each for each in lines(result)[1:] if "late" in each]
    assert "--lateness" in line
    assert "astrocyte inspect" in line


def test_events_without_any_key_are_said_with_what_to_declare(tmp_path):
    record = event(0, value=5)._replace(key=None)
    (line,) = lines(run("match", *files(tmp_path, HIGH, record)))[1:]
    assert "'key: customer_id'" in line


def test_a_stream_that_no_rule_reads_is_refused_with_those_that_rules_read(tmp_path):
    with pytest.raises(InvalidSettings, match="--stream B: no rule or window reads this stream; they read A"):
        run("match", *event_file(tmp_path, ROW + "\n"), "--stream", "B")


@pytest.mark.parametrize("command", ["match", "backtest", "score"])
def test_a_log_before_the_rules_is_refused_with_the_right_order(tmp_path, command):
    rules, events = event_file(tmp_path, ROW + "\n")
    with pytest.raises(InvalidSettings, match=r"the rule file comes first, .*: \S+rules\.yaml \S+events\.json"):
        run(command, events, rules)


@pytest.mark.parametrize("key", [b"k", None])
def test_an_event_that_is_read_in_several_copies_is_among_the_rejects_once(tmp_path, key):
    rules = (
        "rules:\n"
        "  - {name: r, seq: [{as: a, stream: A}]}\n"
        "  - {name: s, by: who, seq: [{as: a, stream: A}]}\n"
        "  - {name: t, by: null, seq: [{as: a, stream: A}]}\n"
    )
    same = "11111111-1111-4111-8111-111111111112"
    bodies = [
        {"timestamp": "2026-03-01T10:00:00Z", "event_id": same},
        {"timestamp": "2026-03-01T10:00:00Z", "event_id": same},
        {"timestamp": "2026-03-01T10:00:30Z"},
        {"timestamp": "2026-03-01T10:00:01Z"},
        {"timestamp": "2026-03-01T10:00:31Z", "value": "x"},
    ]
    records = [
        ConsumedRecord("mono.A", 0, number, 1_772_359_200_000, key, orjson.dumps({"who": "w", **body}))
        for number, body in enumerate(bodies)
    ]
    rejects = tmp_path / "rejects"
    run("match", *files(tmp_path, rules, *records), "--lateness", "2s", "--rejects", str(rejects))
    listed = [json.loads(line) for line in rejects.read_text().splitlines()]
    found = [(each["cause"], each["offset"]) for each in listed if each["cause"] != "no_key"]
    assert sorted(found) == [("duplicate", 1), ("late", 3)]


def test_events_of_a_frame_of_another_stream_than_the_topic_are_counted_and_reported(tmp_path):
    columns = {"timestamp": [1_772_359_200_000_000 + number for number in range(3)], "key": ["k"] * 3, "value": [9] * 3}
    frames = [encode_frame(Frame.from_columns(stream, "run", columns)) for stream in ("F", "A")]
    records = [
        ConsumedRecord("mono.A", 0, offset, 1_772_359_200_000, b"k", payload) for offset, payload in enumerate(frames)
    ]
    result = run("match", *files(tmp_path, HIGH, *records))
    (line,) = [line for line in lines(result) if "frames of stream" in line]
    assert "3 events of mono.A came in frames of stream 'F'" in line
    assert "mono.A[0]@0" in line


def hive_frames(folder: Path) -> list[str]:
    """Two frames of a stream of the catalog, 70 events in all, with numbers where it lists text, and one planted."""
    rows = [Frame.from_columns("test_hive", "run", {
        "timestamp": 1_772_359_200_000_000 + np.arange(count), "key": ["k"] * count, "hive": np.arange(count)
    }, first_seq=first) for first, count in ((0, 50), (50, 20))]  # fmt: skip
    truth = Frame.from_columns("truth", "run", {
        "timestamp": [1_772_359_200_000_000], "key": ["k"], "type": ["planted"], "kind": ["swarm"], "rule": ["swarms"],
        "until": [1_772_359_201_000_000], "members": ["[]"],
    })  # fmt: skip
    records = [
        ConsumedRecord(f"mono.{frame.stream}", 0, offset, 1_772_359_200_000, None, encode_frame(frame))
        for offset, frame in enumerate([*rows, truth])
    ]
    rules = "rules: [{name: swarms, seq: [{as: a, stream: test_hive}], alert: {severity: info, message: m}}]"
    return files(folder, rules, *records)


def test_events_of_frames_that_are_refused_as_a_whole_are_counted_and_a_score_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(CATALOG._types, "test_hive", EventType("test_hive", "hive", {"hive": "string"}, ("weighing",)))
    given = hive_frames(tmp_path)
    assert "0 multi events of 70 events (0 late, 70 refused)" in run("match", *given).stderr
    shown = run("score", *given).stdout.splitlines()
    assert "70 of 70 events were refused" in shown
    assert any("70" in line and "hive" in line and "string" in line for line in shown)
    assert json.loads(run("score", *given, "--json").stdout)["refused"][0] == "70 of 70 events were refused"


REFUSED = "streams: [{name: A, key: device, fields: {v: float64}}]\n" + HIGH.replace("value", "v")


@pytest.mark.parametrize("command", [("match",), ("backtest",), ("backtest", "--json")])
def test_where_every_event_was_refused_the_status_is_1_and_the_last_line_says_so(tmp_path, command):
    given = files(tmp_path, REFUSED, event(0, v="x"), event(1, v="y"))
    result = run(command[0], *given, *command[1:])
    assert result.exit_code == 1
    assert lines(result)[-1].startswith("all 2 events were refused, for the reasons above")
    (tmp_path / "log.jsonl").unlink()
    assert run(command[0], *files(tmp_path, REFUSED, event(0, v="x"), event(1, v=5)), *command[1:]).exit_code == 0


@pytest.mark.parametrize("declared", [REFUSED, REFUSED.replace("fields", "time: when, fields")])
def test_a_refused_event_is_listed_with_the_key_that_it_holds(tmp_path, declared):
    body = {"timestamp": "2026-03-01T10:00:00Z", "v": "x", "device": 7}
    records = [
        ConsumedRecord("mono.A", 0, 0, 1_772_359_200_000, None, orjson.dumps(body)),
        ConsumedRecord("mono.A", 0, 1, 1_772_359_200_000, b"k", orjson.dumps(body)),
        ConsumedRecord("mono.A", 0, 2, 1_772_359_200_000, None, b"no JSON"),
        event(3, v=1, device=1, when="2026-03-01T10:00:00Z"),
    ]
    rejects = tmp_path / "rejects.jsonl"
    run("match", *files(tmp_path, declared, *records), "--rejects", str(rejects))
    assert [json.loads(line)["key"] for line in rejects.read_text().splitlines()] == ["7", "k", None]


def test_a_member_of_an_object_that_never_came_as_a_field_is_named_with_its_declaration(tmp_path):
    rules = "rules: [{name: r, by: user.id, seq: [{as: u, stream: A, where: '`user.id` == 3'}]}]"
    result = run("match", *files(tmp_path, rules, event(0, user={"id": 3})))
    cure = "streams: [{name: A, fields: {user_id: {path: user.id}}}]"
    assert (
        "field 'user.id' of A, which rule 'r' reads, never came; 'user' came: for a member of it declare "
        f"'{cure}' and write user_id"
    ) in lines(result)
    (tmp_path / "log.jsonl").unlink()
    mended = cure + "\n" + rules.replace("`user.id`", "user_id").replace("user.id", "user_id")
    assert lines(run("match", *files(tmp_path, mended, event(0, user={"id": 3}))))[0].startswith("1 multi event of 1")


def test_an_unknown_step_may_be_a_member_and_the_error_names_the_declaration():
    with pytest.raises(InvalidRules, match=r"such as 'fields: \{user_id: \{path: user.id\}\}'; a field with a dot"):
        load_rules("rules: [{name: r, seq: [{as: u, stream: A, where: user.id == 3}]}]")
