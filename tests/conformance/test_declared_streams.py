"""Declared streams together with everything else: dead letters and their retry, validators, clocks, copies of streams.

A letter of a declared stream that is sent again is the event that it would have been, with the same id.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from astrocyte import load_rules
from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis import offline
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.recording.dead_letters import retried_messages
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.pipeline.topology.plan import decoders_of, make_plan
from astrocyte.schemas.contract import Contract, read_event
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.values import mixed

TOPIC = "plant.rooms"
NOON_MS = 1_772_366_400_000
RULES = "rules: [{name: seen, by: room, seq: [{as: a, stream: rooms}], emit: {v: a.v, room: a.room}}]"
REFUSING = "validators: [{stream: rooms, where: 'v != 3'}]\n"


def rules_of(stream: str, *, refusing: bool = False) -> RuleSet:
    return load_rules(f"streams: [{{name: rooms, topic: {TOPIC}, {stream}}}]\n{REFUSING if refusing else ''}{RULES}")


def domain_of(rules: RuleSet) -> Domain:
    """A worker's domain for one partition, which closes nothing before its input ends."""
    plan = make_plan(rules)
    (group,) = plan.groups
    return Domain(
        0, [DomainGroup(group.field, Engine(group.ruleset, validated=True), group.topics)], topics=plan.topics,
        lateness_us=3_600_000_000, validators=Validators(rules.validators), decoders=decoders_of(plan.contracts),
    )  # fmt: skip


def ended(domain: Domain) -> DomainOutput:
    output = domain.mark_all_idle()
    output.extend(domain.flush())
    return output


def found(output: DomainOutput) -> list[Any]:
    bodies = [orjson.loads(record.value) for record in output.multi_events]
    return sorted((body["source_events"], body["timestamp"], repr(body["metadata"])) for body in bodies)


def json_records(values) -> list[RawRecord]:
    bodies = [{"at": NOON_MS // 1000 + number, "room": "r", "n": number, "v": v} for number, v in enumerate(values)]
    return [RawRecord(offset, NOON_MS, b"k", orjson.dumps(body)) for offset, body in enumerate(bodies)]


def changes(values) -> list[RawRecord]:
    records = []
    for offset, v in enumerate(values):
        row = {"id": offset, "room": "r", "v": v, "n": offset}
        body = {"op": "c", "before": None, "after": row, "source": {"ts_ms": NOON_MS + offset}}
        records.append(RawRecord(offset, NOON_MS, orjson.dumps({"id": offset}), orjson.dumps(body)))
    return [*records, RawRecord(len(records), NOON_MS, b'{"id":0}', None)]


def cloud_events(values) -> list[RawRecord]:
    records = []
    for offset, v in enumerate(values):
        attributes = {"specversion": "1.0", "id": str(offset), "source": "/s", "type": "t"}
        attributes["time"] = f"2026-03-01T12:00:0{offset}Z"
        data = {"v": v, "room": "r", "n": offset}
        headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
        binary = RawRecord(2 * offset, NOON_MS, b"k", orjson.dumps(data), headers)
        structured = orjson.dumps({**attributes, "id": f"s{offset}", "data": data})
        records += [binary, RawRecord(2 * offset + 1, NOON_MS, b"k", structured)]
    return records


def csv_lines(values) -> list[RawRecord]:
    lines = [f"{NOON_MS // 1000 + number},r,{number},{v}" for number, v in enumerate(values)]
    return [RawRecord(offset, NOON_MS, b"k", "\n".join(lines).encode()) for offset in range(2)]


def frames(values) -> list[RawRecord]:
    columns = {"timestamp": np.arange(len(values)) * 1000 + NOON_MS * 1000, "key": ["r"] * len(values)}
    frame = Frame.from_columns("rooms", "run", {**columns, "v": mixed.column_of(list(values))})
    return [RawRecord(0, NOON_MS, None, encode_frame(frame))]


FORMS = {
    "json": (json_records, "decoder: json, key: room, time: {field: at, unit: s}, id: n"),
    "json without a decoder": (json_records, "key: room, time: {field: at, unit: s}, id: n"),
    "debezium": (changes, "decoder: debezium, key: {field: room, partitioned: true}, id: after.n"),
    "cloudevents": (cloud_events, "decoder: cloudevents, key: room"),
    "csv": (csv_lines, "decoder: {name: csv, columns: [time, room, n, v]}, key: room"),
    "frames": (frames, "decoder: arrow, key: room"),
    "frames without a decoder": (frames, "key: room"),
    "frames beside JSON with its own time and id": (frames, "key: room, time: {field: at, unit: s}, id: n"),
}


def retried(domain: Domain, letters, offset: int) -> DomainOutput:
    output = DomainOutput()
    messages, refused = retried_messages(letters)
    assert refused == []
    for message in messages:
        record = RawRecord(offset, message.timestamp_ms or -1, message.key, message.value, message.headers)
        output.extend(domain.feed(TOPIC, [record]))
        offset += 1
    return output


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["", "path: after.v, "])
def test_letters_that_are_sent_again_become_the_events_that_they_would_have_been(form, path):
    make, declaration = FORMS[form]
    if path and form not in ("debezium", *(name for name in FORMS if name.startswith("frames"))):
        path = "path: v, "
    strict = f"{declaration}, fields: {{v: {{{path}type: float64}}}}"
    lenient = f"{declaration}, fields: {{v: {{{path}type: float64}}}}, on_type_error: null"
    records = make([1.5, "x", 3.0, 4.5])
    domain = domain_of(rules_of(strict, refusing=True))
    output = domain.feed(TOPIC, records)
    letters = output.dead_letters
    assert sorted({letter.stage for letter in letters}) == ["decode", "validate"]

    mended = rules_of(lenient)
    plan = make_plan(mended)
    domain.update({group.field: group.ruleset for group in plan.groups}, Validators(()), decoders_of(plan.contracts))
    output.extend(retried(domain, letters, len(records)))
    output.extend(ended(domain))

    clean = domain_of(mended)
    expected = clean.feed(TOPIC, records)
    expected.extend(ended(clean))
    assert found(output) == found(expected)
    assert len(output.dead_letters) == len(letters)
    assert (domain.counters.late, domain.counters.duplicate) == (0, 0)
    assert domain.counters.processed == clean.counters.processed
    assert domain.counters.skipped == clean.counters.skipped


@pytest.mark.parametrize("form", FORMS)
def test_a_letter_that_is_refused_again_can_be_sent_a_third_time(form):
    make, declaration = FORMS[form]
    path = "path: after.v, " if form == "debezium" else ""
    strict = rules_of(f"{declaration}, fields: {{v: {{{path}type: float64}}}}")
    records = make([1.5, "x", 3.0])
    domain = domain_of(strict)
    first = domain.feed(TOPIC, records).dead_letters
    second = retried(domain, first, len(records)).dead_letters
    third = retried(domain, second, 2 * len(records)).dead_letters
    assert len(first) == len(second) == len(third) > 0
    assert [letter.reason for letter in first] == [letter.reason for letter in third]
    assert len({letter.letter_id for letter in (*first, *second, *third)}) == 3 * len(first)
    assert domain.counters.processed == clean_count(strict, records)


def clean_count(rules: RuleSet, records) -> int:
    domain = domain_of(rules)
    domain.feed(TOPIC, records)
    return domain.counters.processed


def test_a_retried_message_that_holds_fewer_events_now_is_a_dead_letter_that_says_so():
    rules = rules_of("decoder: {name: csv, columns: [time, room, n, v]}, key: room, fields: {v: float64}")
    letters = domain_of(rules).feed(TOPIC, csv_lines([1, "x"])[:1]).dead_letters
    shorter = letters[0].model_copy(update={"row": 7})
    (letter,) = retried(domain_of(rules), [shorter], 1).dead_letters
    assert "event 7 of the message, which now holds 2 events" in letter.reason


def test_a_header_of_another_program_that_names_no_event_refuses_that_message_alone():
    rules = rules_of("decoder: {name: csv, columns: [time, room, n, v]}, key: room")
    (record,) = csv_lines([1, 2])[:1]
    odd = record._replace(headers=[("astrocyte_letter", b"a"), ("astrocyte_row", b"one")])
    domain = domain_of(rules)
    assert len(domain.feed(TOPIC, [odd, record._replace(offset=1)]).dead_letters) == 1
    assert domain.counters.processed == 2


class FullStore:
    """A sink that can write nothing, because of what the rows hold."""

    name = "full"

    async def write(self, batch):
        raise ValueError("no room")


@pytest.mark.parametrize("form", FORMS)
async def test_a_row_that_a_store_refused_is_the_same_event_when_it_is_sent_again(form):
    make, declaration = FORMS[form]
    path = "path: after.v, " if form == "debezium" else ""
    rules = rules_of(f"{declaration}, fields: {{v: {{{path}type: float64}}}}")
    records = make([1.5, 2.5])
    sent = []

    async def deliver(letters):
        sent.extend(DeadLetter.model_validate_json(letter.value) for letter in letters)

    decoders = decoders_of(make_plan(rules).contracts)
    runner = SinkRunner(FullStore(), deliver, partitions=1, decoders=decoders)
    delivery = SimpleNamespace(ack_through=lambda: None)
    await runner.handle(SimpleNamespace(topic=TOPIC, partition=0), delivery, records)
    await runner.finish()

    again, clean = domain_of(rules), domain_of(rules)
    output, expected = retried(again, sent, len(records)), clean.feed(TOPIC, records)
    output.extend(ended(again))
    expected.extend(ended(clean))
    assert output.dead_letters == []
    assert found(output) == found(expected) != []


COPIED = """
streams:
  - name: rooms
    topic: plant.rooms
    decoder: debezium
    key: room
    time: {field: after.at, unit: us}
    id: after.n
    fields: {v: {path: after.v, type: float64}}
validators: [{stream: rooms, where: "v != 3"}]
rules: [{name: seen, by: room, seq: [{as: a, stream: rooms}], emit: {v: a.v, room: a.room}}]
"""


def log_of(path, rows) -> str:
    """A recorded log of changes of rows (None: a tombstone), one a second."""
    lines = []
    for offset, row in enumerate(rows):
        body = None
        if row is not None:
            at = NOON_MS * 1000 + offset * 1_000_000
            after = {"n": offset, "at": at, "v": 1, **row}
            body = orjson.dumps({"op": "c", "before": None, "after": after, "source": {"ts_ms": NOON_MS}}).decode()
        key = orjson.dumps({"n": offset}).decode()
        record = {"topic": TOPIC, "partition": 0, "offset": offset, "ts": NOON_MS, "key": key, "payload": body}
        lines.append(orjson.dumps(record))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def test_events_of_a_stream_that_rules_read_as_a_copy_alone_are_counted_by_its_declaration(tmp_path):
    rows = [
        {"room": "r"},
        {"room": "r", "v": "x"},
        {"room": "r", "v": 3},
        {"room": "broken", "at": NOON_MS * 1000 + 10**13},
        None,
        {"room": None},
        {},
        {"room": "s"},
    ]
    log = log_of(tmp_path / "log.jsonl", rows)
    run, outputs = run_rules(load_rules(COPIED), [log], lateness_us=1_000_000, list_unused=True)
    output = DomainOutput()
    for each in outputs:
        output.extend(each)
    assert [body[0] for body in found(output)] == [["rooms:0"], ["rooms:7"]]
    places = [(letter.stage, letter.offset) for letter in output.dead_letters]
    assert places == [("decode", 1), ("validate", 2), ("clock", 3)]
    assert [(each.cause, each.offset) for each in output.unused] == [("no_key", 5), ("no_key", 6)]
    counters = run.counters
    assert (counters.received, counters.processed, counters.dead, counters.skipped) == (8, 4, 3, 1)


def test_the_kafka_key_of_a_stream_that_is_partitioned_by_something_else_is_not_its_key():
    row = {"op": "c", "after": {"n": 1, "room": None}, "source": {"ts_ms": NOON_MS}}
    stream = StreamDeclaration(name="rooms", decoder="debezium", key="room")
    assert read_event(row, Contract("rooms", stream), key="7").key is None
    partitioned = StreamDeclaration(name="rooms", decoder="debezium", key={"field": "room", "partitioned": True})
    assert read_event(row, Contract("rooms", partitioned), key="7").key == "7"


@pytest.mark.parametrize(
    ("source", "own", "expected"),
    [
        ({"ts_ms": 0}, 7, 7), ({"ts_ms": None}, 7, 7), ({}, 7, 7), ({"ts_ms": 5}, 7, 5), ({"ts_ms": 0}, None, 0),
        ({"ts_ms": "5"}, 7, "5"),
    ],
)  # fmt: skip
def test_a_row_of_a_snapshot_without_a_time_in_the_database_has_that_of_its_message(source, own, expected):
    row = {"op": "r", "after": {"n": 1}, "source": source, "ts_ms": own}
    assert read_event(row, Contract("rooms", StreamDeclaration(name="rooms", decoder="debezium"))).time == expected


PAIRS = """
streams:
  - {name: rooms, topic: plant.rooms, decoder: debezium, key: room, time: {field: after.at, unit: us}}
rules:
  - name: rising
    by: room
    within: 3h
    seq: [{as: a, stream: rooms, where: "v > 5"}, {as: b, stream: rooms, where: "v > a.v"}]
"""


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_late_events_and_wrong_clocks_of_a_copied_stream_do_not_depend_on_how_messages_are_divided(
    seed, tmp_path, monkeypatch
):
    dice = random.Random(seed)
    rows, at = [], NOON_MS * 1000
    for _ in range(60):
        at += dice.choice([0, 1_000_000, 1_000_000, 7_200_000_000 if dice.random() < 0.1 else 0])
        behind = dice.choice([5, 30]) * 1_000_000 if dice.random() < 0.2 else 0
        ahead = 36_000_000_000 if dice.random() < 0.1 else 0
        rows.append({"room": dice.choice(["r", "s", None]), "v": dice.randrange(12), "at": at - behind + ahead})
    log = log_of(tmp_path / "log.jsonl", rows)
    results = []
    for size in (1, 7, 256):
        monkeypatch.setattr(offline, "_BATCH", size)
        run, outputs = run_rules(load_rules(PAIRS), [log], lateness_us=1_000_000)
        output = DomainOutput()
        for each in outputs:
            output.extend(each)
        late = {orjson.loads(record.value)["event_id"] for record in output.late}
        letters = sorted(letter.offset for letter in output.dead_letters)
        ids = sorted(orjson.loads(record.value)["event_id"] for record in output.multi_events)
        results.append((ids, late, letters, run.counters.as_dict()))
    assert results[0] == results[1] == results[2]
    assert results[0][0]
    assert results[0][1]


MIXED = """
streams: [{name: rooms, topic: plant.rooms, key: room, time: {field: at, unit: us}}]
validators: [{stream: rooms, where: "v != 0.5"}]
windows: [{name: w, from: rooms, by: room, every: 5s, select: {n: count(), m: max(v), c: count(v)}}]
rules:
  - name: same
    by: room
    within: 20s
    seq: [{as: a, stream: rooms, where: "v is not None"}, {as: b, stream: rooms, where: "v == a.v"}]
    emit: {v: a.v, w: b.v}
  - name: text_and_number
    by: room
    within: 10s
    all: [{as: a, stream: rooms, where: "v == 'x'"}, {as: b, stream: rooms, where: "v == 1"}]
    emit: {v: a.v, w: b.v}
  - {name: counted, by: room, seq: [{as: x, stream: w}], emit: {n: x.n, m: x.m, c: x.c}}
"""
VALUES = [1, "x", 2**60 + 1, 0.5, True, None, [1, 2], {"a": 1}, "é", -0.0, 2**63 + 5]


def mixed_messages(form: str, dice: random.Random) -> list[RawRecord]:
    """Messages with values of every kind, some of which are hours ahead; in frames two rows each."""
    messages, at_us = [], NOON_MS * 1000
    for offset in range(60):
        at_us += dice.choice([1, 1000, 1_000_000, 1_000_000])
        time_us = at_us + (36_000_000_000 + offset if dice.random() < 0.1 else 0)
        room, values = dice.choice("rs"), [dice.choice(VALUES), dice.choice(VALUES)]
        if form == "json":
            value = orjson.dumps({"at": time_us, "v": values[0], "room": room})
        else:
            columns = {"timestamp": np.array([time_us, time_us + 1]), "key": [room, room], "room": [room, room]}
            frame = Frame.from_columns("rooms", "", {**columns, "v": mixed.column_of(values)}, first_seq=2 * offset)
            value = encode_frame(frame)
        messages.append(RawRecord(offset, at_us // 1000, room.encode(), value))
    return messages


def mixed_domain() -> Domain:
    rules = load_rules(MIXED)
    plan = make_plan(rules)
    (group,) = plan.groups
    return Domain(
        0, [DomainGroup(group.field, Engine(group.ruleset, validated=True), group.topics)], topics=plan.topics,
        lateness_us=5_000_000, validators=Validators(rules.validators), decoders=decoders_of(plan.contracts),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["json", "frames"])
@pytest.mark.parametrize("seed", [1, 2])
def test_snapshots_with_mixed_values_and_waiting_events_change_nothing(form, seed):
    dice = random.Random(seed)
    messages = mixed_messages(form, dice)
    whole, restarted = mixed_domain(), mixed_domain()
    expected, output, waited = DomainOutput(), DomainOutput(), 0
    for message in messages:
        expected.extend(whole.feed(TOPIC, [message]))
        output.extend(restarted.feed(TOPIC, [message]))
        if dice.random() < 0.15:
            waited += restarted.waiting
            state = pack_state(restarted.snapshot())
            restarted = mixed_domain()
            restarted.restore(unpack_state(state))
    expected.extend(ended(whole))
    output.extend(ended(restarted))
    assert [record.value for record in output.multi_events] == [record.value for record in expected.multi_events]
    assert [record.value for record in output.late] == [record.value for record in expected.late]
    assert output.dead_letters == expected.dead_letters
    assert restarted.counters == whole.counters
    assert waited
    assert expected.multi_events
