"""What identifies an event, and what its key is, by the contract of its stream."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from itertools import combinations

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astrocyte import load_rules, match
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.replays.shift import Shift, shift_record
from astrocyte.schemas.contract import Contracts, scoped_id
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import parse_ids
from astrocyte.schemas.json.reader import RawRecord, records_to_frame
from astrocyte.schemas.json.text import dumps, loads, loads_exact
from astrocyte.schemas.values.single import key_text
from tests.support.declared import message, read

UUID = "73ef885b-fdf0-87c8-90be-1d60884f4e8b"
PARTS = st.text("a:%3A5", max_size=6) | st.text(max_size=60)


@given(PARTS, PARTS, PARTS, PARTS)
def test_an_id_in_a_scope_is_that_of_no_other_pair(scope, text, other_scope, other_text):
    first, second = scoped_id(scope, text), scoped_id(other_scope, other_text)
    assert (first == second) == ((scope, text) == (other_scope, other_text))
    assert max(len(first), len(second)) <= 100


def ids_of(frames):
    return [text for item in frames for text in item.frame.id_strings()]


def words_of(frames):
    return [tuple(row) for item in frames for row in item.frame.ids().tolist()]


@pytest.mark.parametrize("value", ["o-17", UUID, UUID.upper(), UUID.replace("-", ""), f"req_{UUID}", 17])
def test_one_declared_id_in_two_streams_is_two_events(value):
    streams = "streams: [{name: a, id: rid, time: {field: at}}, {name: b, id: rid, time: {field: at}}]\n"
    rules = load_rules(
        streams + "rules: [{name: r, by: key, within: 5s, all: [{as: x, stream: a}, {as: y, stream: b}]}]"
    )
    body = {"rid": value, "key": "k"}
    events = [{**body, "stream": "a", "at": "2025-09-28T10:30:00Z"}, {**body, "stream": "b", "at": 1759055401}]
    found = match(rules, [*events, events[0]])
    assert (len(found), found.duplicates) == (1, 1)
    assert sorted(each.id for step in found[0].events.values() for each in step) == [f"a:{value}", f"b:{value}"]
    read_ids = [ids_of(read(f"{{name: {name}, id: rid}}", message(body))[2]) for name in ("a", "b")]
    assert read_ids == [[f"a:{value}"], [f"b:{value}"]]


@pytest.mark.parametrize("binary", [False, True])
def test_cloud_events_are_one_only_with_one_id_of_one_source(binary):
    pairs = [
        *((source, f"{before}{UUID}") for source in ("/orders", "/payments") for before in ("", "req_", "evt_")),
        ("urn:a", "1:x"),
        ("urn:a:1", "x"),
    ]
    attributes = [{"specversion": "1.0", "id": name, "source": source, "type": "t"} for source, name in pairs]
    messages = [
        message({"v": 1}, headers=[(f"ce_{name}", value.encode()) for name, value in each.items()])
        if binary
        else message({**each, "data": {"v": 1}})
        for each in attributes
    ]
    _, letters, frames = read("{name: s, decoder: cloudevents}", *messages, messages[0])
    words = words_of(frames)
    assert letters == []
    assert len(set(words)) == len(pairs) == len(words) - 1
    assert [tuple(row) for row in parse_ids(ids_of(frames)).tolist()] == words


@given(st.lists(st.uuids().map(str) | st.text(max_size=5) | st.text("0123456789abcdef-_:", max_size=40), max_size=5))
def test_events_of_one_declared_id_are_one_whatever_form_the_id_has(values):
    _, _, frames = read("{name: s, id: uid}", *(message({"uid": value}) for value in values))
    for (one, word), (other, other_word) in combinations(zip(values, words_of(frames), strict=True), 2):
        assert (word == other_word) == (one == other)


def offline(rules, path):
    """Bodies of the multi events of a file, and the causes for which events were not used."""
    _, outputs = run_rules(rules, [path], lateness_us=10_000_000, list_unused=True)
    outputs = list(outputs)
    made = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    return [body["metadata"] for body in made], [each.cause for output in outputs for each in output.unused]


WIDE = [20_250_928_103_000_000_000 + number for number in range(3)]
"""Integers beyond 64 bits that are one float."""
KEYED = "rules: [{name: r, by: %s, within: 1h, seq: [{as: a, stream: s}, {as: b, stream: s}], emit: {v: a.v}}]"


def wide_bodies(**fields):
    return [
        {"v": 2 * number + again, "stream": "s", "timestamp": f"2025-09-28T10:30:0{2 * number + again}Z"}
        | {name: of(value) for name, of in fields.items()}
        for number, value in enumerate(WIDE)
        for again in (0, 1)
    ]


BOUNDARIES = [
    sign * bound for sign in (1, -1) for bound in (2**63, 2**64, 10**18, 9 * 10**18, 10**19, 10**20, 10**21)
]  # fmt: skip
INTEGERS = st.sampled_from(BOUNDARIES).flatmap(lambda bound: st.integers(bound - 1100, bound + 1100))
"""Around every length at which a parser of integers or of floats may take another way."""
MONO = b'{"event_id":null,"timestamp":1,"source_stream":"s","type":"t","value":1,"metadata":{"a":%b}}'


def correlated_by(name, *values):
    """The values of a field by which rules correlate, as they are read of JSON records of one chunk."""
    contract = Contracts(correlated={"s": [name]}).of_stream("s")
    records = [RawRecord(number, 1, None, value) for number, value in enumerate(values)]
    frame, _, refused = records_to_frame("mono.s", 0, "s", records, contract=contract)
    assert refused == []
    return frame.values(name)


@given(st.lists(INTEGERS, min_size=1, max_size=4), st.sampled_from([b"%d", b" %d ", b"\t%d\r\n"]))
@example([-(2**63) - 1, -(2**63), 1 - 10**19, -(10**19)], b"%d")
@example([-9300000000000000001], b" %d ")
def test_integers_around_every_boundary_are_distinct_wherever_they_tell_events_apart(numbers, form):
    strings, digits = [form % each for each in numbers], list(map(str, numbers))
    assert [loads(text) for text in strings] == numbers
    bodies = [message(b'{"n":{"a":%b},"a":%b,"v":[%b]}' % (text, text, text)) for text in strings]
    for declared in ("key: a", "key: {field: m, path: n.a}", "key: a, fields: {a: string}"):
        rows, letters, _ = read(f"{{name: s, {declared}}}", *bodies)
        assert ([row["key"] for row in rows], letters) == (digits, [])
    for declared in ("id: a", "id: n.a"):
        assert ids_of(read(f"{{name: s, {declared}}}", *bodies)[2]) == [f"s:{each}" for each in digits]
    rows, _, _ = read("{name: s, key: {field: k, reading: json}}", *(message({}, key=text) for text in strings))
    assert [row["key"] for row in rows] == digits
    for shape in (b'{"a":%b}', b'{"v":1.5,"a":%b}', b'{"metadata":{"a":%b}}', MONO):
        assert list(map(str, correlated_by("a", *(shape % text for text in strings)))) == digits
        assert list(map(str, correlated_by("a", shape % b'"x"', *(shape % text for text in strings)))) == ["x", *digits]


LONG = ["12345678901234567.1", "12345678901234567.1000000001", "0.12345678901234567", "1.00000000000000001e-7"]
"""Numbers that no float has."""


@pytest.mark.parametrize("number", LONG)
def test_fractions_in_json_keep_their_digits_where_they_tell_events_apart(number):
    wanted = key_text(Decimal(number))
    assert wanted != key_text(float(number))
    body = b'{"n":{"a":%b},"a":%b,"b":%b}' % ((number.encode(),) * 3)
    for declared in ("key: a", "key: {field: m, path: n.a}", "key: a, fields: {a: string}"):
        (row,), letters, _ = read(f"{{name: s, {declared}}}", message(body))
        assert (row["key"], row["b"], letters) == (wanted, float(number), [])
    for declared in ("id: a", "id: n.a"):
        assert ids_of(read(f"{{name: s, {declared}}}", message(body))[2]) == [f"s:{wanted}"]
    (row,), _, _ = read("{name: s, key: {field: k, reading: json}}", message({}, key=number.encode()))
    assert row["key"] == wanted
    for shape in (b'{"a":%b}', b'{"metadata":{"a":%b}}', MONO):
        assert correlated_by("a", shape % number.encode(), shape % b"0.5") == [wanted, 0.5]
    declared = "{name: s, key: acct, decoder: {name: csv, columns: [acct]}}"
    assert [row["key"] for row in read(declared, message(number.encode()))[0]] == [wanted]


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["%r", "%.17g"]))
def test_the_digits_that_programs_write_of_a_float_are_that_float(number, form):
    text = (form % number).encode()
    assert correlated_by("a", b'{"a":%b}' % text) == [loads(text)]


@given(st.decimals(allow_nan=False, allow_infinity=False) | st.integers() | st.floats(), st.booleans())
def test_a_decimal_is_written_with_all_its_digits(number, beside_nan):
    body = {"a": number, "b": [math.nan] if beside_nan else [10**30]}
    (found,) = [loads_exact(dumps(body))["a"]]
    assert key_text(found) == key_text(number) or key_text(Decimal(f"{float(found):.17g}")) == key_text(number)


@pytest.mark.parametrize("declared", ["", "streams: [{name: s, key: acct}]\n", "streams: [{name: s, id: n}]\n"])
@pytest.mark.parametrize("of", [int, Decimal, lambda value: Decimal(f"{value}.00")])
def test_integers_beyond_64_bits_are_distinct_as_key_id_and_field_of_by(declared, of, tmp_path):
    bodies = wide_bodies(acct=of)
    bodies = [body | {"n": 10 * body["acct"] + body["v"]} for body in bodies]
    rules = load_rules(declared + KEYED % "acct")
    pushed = Engine(rules)
    for body in bodies:
        pushed.push_event(body)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(map(dumps, bodies)))
    logged, _ = offline(rules, path)
    assert [each.emit["v"] for each in match(rules, bodies)] == [0, 2, 4]
    assert sorted(each.emit["v"] for each in pushed.flush().matches) == [0, 2, 4]
    assert [each["v"] for each in logged] == [0, 2, 4]


@pytest.mark.parametrize(
    ("declared", "keys", "bodies"),
    [
        ("{name: s}", WIDE, [{"v": 1}] * 3),
        ("{name: s, key: {field: acct, reading: json}}", WIDE, [{"v": 1}] * 3),
        ("{name: s, decoder: debezium}", [{"id": each} for each in WIDE], [{"op": "c", "ts_ms": 1, "after": {}}] * 3),
        ("{name: s}", [None] * 3, [{"key": each} for each in WIDE]),
        ("{name: s, key: acct}", [None] * 3, [{"acct": each} for each in WIDE]),
        ("{name: s, key: acct, fields: {acct: string}}", [None] * 3, [{"acct": each} for each in WIDE]),
        ("{name: s, key: acct, decoder: {name: csv, columns: [acct]}}", [None] * 3, WIDE),
    ],
)
def test_a_key_has_all_digits_of_an_integer_in_every_form(declared, keys, bodies):
    messages = [
        message(dumps(body) if isinstance(body, dict) else str(body).encode(), key=None if key is None else dumps(key))
        for key, body in zip(keys, bodies, strict=True)
    ]
    rows, letters, _ = read(declared, *messages)
    assert letters == []
    assert [row["key"] for row in rows] == list(map(str, WIDE))
    assert all(row.get("acct", row["key"]) == row["key"] for row in rows)


@pytest.mark.parametrize("role", ["key", "id"])
def test_a_key_or_id_of_declared_text_takes_the_digits_of_an_integer(role):
    declared = f"{{name: s, {role}: a, fields: {{a: string, b: string}}}}"
    rows, letters, _ = read(declared, *(message(dumps({"a": each})) for each in (*WIDE, 7, "7", 7.5)))
    assert [row["a"] for row in rows] == [*map(str, WIDE), "7", "7"]
    assert [letter.reason for letter in letters] == ["field 'a' is 7.5; expected string"]
    columns = {"timestamp": [1, 2], "key": ["k", "k"], "a": [7, 8], "b": ["x", 8]}
    rows, letters, _ = read(declared, message(encode_frame(Frame.from_columns("s", "", columns))))
    assert [row["a"] for row in rows] == ["7"]
    assert [letter.reason for letter in letters] == ["field 'b' is 8; expected string"]


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.decimal128(38, 10)])
@pytest.mark.parametrize("name", ["key", "acct"])
def test_decimal_numbers_of_a_parquet_file_are_distinct_as_keys_and_ids(kind, name, tmp_path):
    numbers = pa.array([Decimal(each) for each in WIDE], kind)
    table = pa.table({"timestamp": [1_759_055_400] * 3, name: numbers, "v": [0, 1, 2]})
    pq.write_table(table, tmp_path / "events.parquet")
    for declared in (f"key: {name}", f"id: {name}"):
        rules = load_rules(f"streams: [{{name: s, {declared}}}]\n{KEYED % name}")
        assert offline(rules, tmp_path / "events.parquet") == ([], [])
    frame = Frame.from_columns("s", "", {"timestamp": [1, 2, 3], "key": numbers})
    assert decode_frame(encode_frame(frame)).values("key") == list(map(str, WIDE))


BYTES = [b"\x00\x01", b"abc", b"", b"\xff", "ü".encode(), b"0x00"]


def test_bytes_are_one_key_in_kafka_frames_parquet_and_python(tmp_path):
    wanted = ["0x0001", "abc", "", "0xff", "ü", "0x00"]
    rows, _, _ = read("{name: s}", *(message({"v": 1}, key=key) for key in BYTES))
    assert [row["key"] for row in rows] == wanted
    frame = Frame.from_columns("s", "", {"timestamp": range(6), "key": pa.array(BYTES), "v": [1] * 6})
    assert frame.values("key") == wanted
    packed = Frame.from_columns("s", "", {"timestamp": range(6), "key": pa.array(BYTES).dictionary_encode()})
    assert packed.values("key") == wanted
    found = frames_of([{"stream": "s", "timestamp": 1, "key": key} for key in BYTES], ["s"])
    assert [key for each in found for key in each.values("key")] == wanted
    pq.write_table(pa.table({"timestamp": [1_759_055_400] * 6, "key": BYTES}), tmp_path / "events.parquet")
    rules = load_rules("rules: [{name: r, by: key, seq: [{as: a, stream: s}], emit: {k: a.key}}]")
    assert sorted(each["k"] for each in offline(rules, tmp_path / "events.parquet")[0]) == sorted(wanted)


@given(
    st.recursive(
        st.integers() | st.floats(allow_nan=False) | st.text(max_size=30) | st.text("0123456789,:[ "),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_json_text_of_integers_of_any_length_is_read_as_it_was_written(value):
    text = json.dumps(value).encode()
    assert loads(text) == value
    assert loads(b"[NaN, %b]" % text)[1] == value
    assert loads(dumps({"": value}))[""] == value


def test_a_replayed_record_keeps_the_digits_of_its_integers():
    record = ConsumedRecord("mono.s", 0, 0, 0, None, dumps({"timestamp": 1_759_055_400, "acct": WIDE[1]}))
    assert loads(shift_record(record, Shift(event_us=1_000_000)).value)["acct"] == WIDE[1]
