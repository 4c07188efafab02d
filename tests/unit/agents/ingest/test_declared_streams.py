"""Declared streams: paths, types, keys, times and ids, in messages, frames and mappings."""

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte import Engine, Frame, InvalidRules, RuleSet, Stream, encode_frame, load_rules, match
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from tests.support.declared import START_US, decoders, message, read

READ_AS_TEXT = "; for numbers that are written as text declare '{{type: {}, text: true}}'"

# -- declarations ----------------------------------------------------------------------------------------------------


def test_shorthands_stand_for_the_whole_declaration():
    short = Stream(name="orders", decoder="debezium", key="after.customer", time="at", fields={"amount": "float64"})
    whole = Stream(
        name="orders",
        decoder={"name": "debezium"},
        key={"field": "customer", "path": "after.customer"},
        time={"field": "at"},
        fields={"amount": {"type": "float64"}},
    )
    assert short == whole


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{name: a, fields: {x: float}}", "float64"),
        ("{name: a, time: {field: t, unit: min}}", "'s', 'ms', 'us' or 'ns'"),
        ("{name: a, key: {reading: int16}}", "'text', 'int32', 'int64', 'hex' or 'json'"),
        ("{name: a, on_type_error: drop}", "dead_letter"),
        ("{name: a, topics: x}", "topic"),
        ("{name: ''}", "expected a name, got ''"),
        ("{name: a, topic: ''}", "topic: expected a name, got ''"),
        ("{name: a, id: ' '}", "id: expected a name, got ' '"),
        ("{name: a, key: ''}", "key.field: expected a name, got ''"),
        ("{name: a, time: ''}", "time.field: expected a name, got ''"),
        ("{name: a, fields: {x: {path: ''}}}", "fields.x.path: expected a name, got ''"),
        ("{name: a, fields: {'': int64}}", "expected a name, got ''"),
        ("{name: a, topic: 'a b'}", "topic 'a b'; expected 1 to 249 letters, .* name the topic as it is in Kafka"),
        ("{name: a/b}", "topic 'mono.a/b'; expected 1 to 249 letters, .* give the name of its topic as topic:"),
        ("{name: a, topic: multi.events}", "the pipeline itself writes topic 'multi.events'.* as a stream of its name"),
        ("{name: a, topic: alerts}", "the pipeline itself writes topic 'alerts'"),
        ("{name: a, topic: late}", "the pipeline itself writes topic 'late'"),
        ("{name: a, topic: dead_letters}", "the pipeline itself writes topic 'dead_letters'"),
        ("{name: a, topic: keyed.x.a}", "the pipeline itself writes topic 'keyed.x.a'"),
        ("{name: a, topic: metrics.w}", "the pipeline itself writes topic 'metrics.w'"),
        ("{name: a, topic: state.g}", "the pipeline itself writes topic 'state.g'"),
        ("{name: a, topic: control.clock}", "the pipeline itself writes topic 'control.clock'"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_possible(text, reason):
    with pytest.raises(InvalidRules, match=reason):
        load_rules(f"streams:\n  - {text}\n")


def test_an_unknown_decoder_or_option_is_refused_before_anything_runs():
    with pytest.raises(InvalidRules, match=r"stream 'a': decoder: there is no decoder 'avroo'.* did you mean 'avro'"):
        decoders("{name: a, decoder: avroo}")
    with pytest.raises(InvalidSettings, match="takes no option 'columns'"):
        decoders("{name: a, decoder: {name: debezium, columns: [x]}}")
    with pytest.raises(InvalidSettings, match="needs the names of the columns"):
        decoders("{name: a, decoder: csv}")
    with pytest.raises(InvalidSettings, match="several columns are called 'v'; give each a name of its own"):
        decoders("{name: a, decoder: {name: csv, columns: [timestamp, v, v]}}")
    with pytest.raises(InvalidSettings, match="one of schemas: FOLDER"):
        decoders("{name: a, decoder: avro}")


def test_a_stream_that_is_declared_twice_is_refused_with_both_places():
    text = "streams:\n  - {name: a, fields: {x: int64}}\n  - {name: b}\n  - {name: a, topic: t}\n"
    with pytest.raises(InvalidRules, match="'a' is declared twice, in line 2 and in line 4; keep one declaration"):
        load_rules(text)
    with pytest.raises(InvalidRules, match=r"'a' is declared twice, as streams\[0\] and (as )?streams\[1\]"):
        load_rules({"streams": [{"name": "a"}, {"name": "a"}]})
    with pytest.raises(InvalidRules, match=r"'a' is declared twice, as streams\[0\] and (as )?streams\[1\]"):
        RuleSet(streams=[Stream(name="a"), Stream(name="a", topic="t")])


def test_two_streams_of_one_topic_are_refused():
    with pytest.raises(InvalidRule, match="'a' and 'b' both read the topic 't'"):
        Contracts([Stream(name="a", topic="t"), Stream(name="b", topic="t")])


# -- times, ids, keys, types -----------------------------------------------------------------------------------------


def test_a_declared_unit_of_time_is_not_guessed():
    rows, letters, _ = read(
        "{name: a, time: {field: at, unit: us}}", message({"at": 3}), message({"at": "1759055400000000"})
    )
    assert [row["timestamp"] for row in rows] == [3, START_US]
    assert letters == []


def test_an_event_without_its_declared_time_or_id_is_refused():
    _, letters, _ = read("{name: a, time: at, id: nr}", message({"nr": 1}), message({"at": 1}, offset=1))
    assert [letter.reason for letter in letters] == [
        "the declared time 'at' is missing or null",
        "the declared id 'nr' is missing or null",
    ]


def test_with_a_declared_time_another_timestamp_is_a_field():
    ((row,), _, _) = read(
        "{name: a, time: {field: at, unit: s}}", message({"at": 1, "timestamp": "2025-01-01T00:00:00Z"})
    )
    assert (row["timestamp"], row["timestamp_"]) == (1_000_000, "2025-01-01T00:00:00Z")


def test_declared_ids_are_unique_in_their_stream_only():
    (_, _, (first,)) = read("{name: a, id: nr}", message({"nr": 1}), message({"nr": 1}), message({"nr": 2}))
    (_, _, (second,)) = read("{name: b, id: nr}", message({"nr": 1}))
    assert first.frame.id_strings() == ["a:1", "a:1", "a:2"]
    assert second.frame.id_strings() == ["b:1"]


def test_a_declared_key_in_the_body_wins_over_the_kafka_key():
    rows, _, _ = read("{name: a, key: who}", message({"who": "x"}, key=b"y"), message({"v": 1}, key=b"y"))
    assert [(row["key"], row["who"]) for row in rows] == [("x", "x"), ("y", "y")]


def test_without_a_declaration_the_kafka_key_wins_and_the_other_is_kept():
    frames, _ = decode_chunk("mono.a", 0, [message({"key": "x"}, key=b"y"), message({"key": "x"}, key=None)])
    assert [(row["key"], row["key_"]) for row in frames[0].frame.event_fields()] == [("y", "x"), ("x", None)]


TYPED = "{name: a, key: who, fields: {who: int64, value: float64, note: {path: inner.note, type: string}}%s}"
VALUES = [{"value": 1.5, "inner": {"note": "n"}}, {"value": "n/a"}, {"value": 2, "inner": {"note": 3}}, {"value": None}]


def test_a_value_of_another_type_is_a_dead_letter_or_null_as_declared():
    messages = [message(value, key=b"7", offset=offset) for offset, value in enumerate(VALUES)]
    rows, letters, _ = read(TYPED % "", *messages)
    assert [(row["who"], row["value"], row["note"]) for row in rows] == [(7, 1.5, "n"), (7, None, None)]
    assert [(letter.offset, letter.reason) for letter in letters] == [
        (1, "field 'value' is 'n/a'; expected float64"),
        (2, "field 'note' is 3; expected string"),
    ]
    rows, letters, _ = read(TYPED % ", on_type_error: null", *messages)
    assert [(row["value"], row["note"]) for row in rows] == [(1.5, "n"), (None, None), (2.0, None), (None, None)]
    assert letters == []


def test_declared_types_hold_in_frames():
    columns = {"timestamp": np.arange(3), "key": ["7"] * 3, "value": pa.array(["1", "x", None]), "note": ["n"] * 3}
    frame = Frame.from_columns("a", "run", columns)
    strict = "{name: a, fields: {value: string, count: int64}}"
    rows, letters, _ = read(strict, message(encode_frame(frame)))
    assert [row["value"] for row in rows] == ["1", "x", None]
    assert [row["count"] for row in rows] == [None] * 3
    rows, letters, _ = read("{name: a, key: who, fields: {value: float64}}", message(encode_frame(frame), offset=4))
    assert [(row["timestamp"], row["who"], row["value"]) for row in rows] == [(2, "7", None)]
    assert [(letter.offset, letter.row) for letter in letters] == [(4, 0), (4, 1)]
    engine = Engine(
        load_rules("streams: [{name: a, fields: {value: float64}}]\nrules: [{name: r, seq: [{as: x, stream: a}]}]")
    )
    engine.push(frame)
    output = engine.flush()
    assert len(output.matches.matches()) == 1
    assert [(each.timestamp_us, each.reason) for each in output.refused] == [
        (0, f"field 'value' is '1'; expected float64{READ_AS_TEXT.format('float64')}"),
        (1, "field 'value' is 'x'; expected float64"),
    ]


def test_a_declared_number_takes_what_loses_nothing_and_other_fields_keep_each_value():
    frame = Frame.from_columns(
        "a",
        "",
        {"timestamp": range(5), "key": ["k"] * 5, "n": [1, 2.0, 2.5, "3", True], "free": [1, 0.5, "x", True, None]},
    )
    text = "{name: a, fields: {n: int64}}"
    events = [{"timestamp": row["timestamp"], "n": row["n"], "free": row["free"]} for row in frame.rows()]
    for messages in ([message(encode_frame(frame))], [message(event) for event in events]):
        rows, letters, _ = read(text, *messages)
        assert [(type(row["n"]), row["n"], row["free"]) for row in rows] == [(int, 1, 1), (int, 2, 0.5)]
        assert [letter.reason for letter in letters] == [
            f"field 'n' is {value}; expected int64{advice}"
            for value, advice in (("2.5", ""), ("'3'", READ_AS_TEXT.format("int64")), ("True", ""))
        ]
        rows, letters, _ = read("{name: a, fields: {n: int64}, on_type_error: null}", *messages)
        assert [row["n"] for row in rows] == [1, 2, None, None, None]
        assert [row["free"] for row in rows] == [1, 0.5, "x", True, None]
        assert letters == []


@pytest.mark.parametrize("form", ["json", "json with NaN", "csv", "frame", "mapping"])
@pytest.mark.parametrize("value", [-(2**63) - 1, -(2**63) - 600, -(2**63) - 1500, -(2**63), 2**63 - 1, 2**63, 2**64])
def test_an_integer_outside_the_declared_range_is_refused_and_never_another_one(value, form):
    """Readers of JSON round an integer just below the range of int64 to the least number in it."""
    fields = "fields: {n: int64}"
    declared = f"{{name: a, {fields}}}"
    if form == "mapping":
        rules = load_rules(
            f"streams: [{declared}]\nrules: [{{name: r, seq: [{{as: x, stream: a}}], emit: {{n: x.n}}}}]"
        )
        matches = match(rules, [{"timestamp": 1, "key": "k", "n": value}])
        found, refused = [each.emit["n"] for each in matches], len(matches.refused)
    else:
        given = message(b'{"timestamp": 1, "n": %d, "other": %s}' % (value, b"NaN" if "NaN" in form else b"0"))
        if form == "csv":
            declared = f"{{name: a, decoder: {{name: csv, columns: [timestamp, n]}}, {fields}}}"
            given = message(b"1,%d" % value)
        if form == "frame":  # in a frame, an integer outside the range of 64 bits is a float
            column = [value if -(2**63) <= value < 2**64 else float(value)]
            given = message(encode_frame(Frame.from_columns("a", "", {"timestamp": [1], "key": ["k"], "n": column})))
        rows, letters, _ = read(declared, given)
        found, refused = [row["n"] for row in rows], len(letters)
    inside = -(2**63) <= value < 2**63
    assert (found, refused) == (([value], 0) if inside else ([], 1))


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (Decimal("4.5"), "int64", None),
        (Decimal("4.5"), "float64", 4.5),
        (Decimal(4), "float64", 4.0),
        (np.int32(4), "float64", 4.0),
        (np.bool_(True), "int64", None),
        (datetime(2020, 1, 1, tzinfo=UTC), "int64", 1_577_836_800_000_000),
        ("\ud800", "string", None),
    ],
)
def test_values_of_python_are_of_the_declared_type_where_they_are_in_a_frame(value, kind, found):
    rules = load_rules(
        f"streams: [{{name: a, fields: {{v: {kind}}}}}]\n"
        "rules: [{name: r, seq: [{as: x, stream: a}], emit: {v: x.v}}]"
    )
    event = {"timestamp": 1, "key": "k", "v": value}
    given = [[event]]
    if value != "\ud800":
        given.append([Frame.from_columns("a", "", {"timestamp": [1], "key": ["k"], "v": [value]})])
    for events in given:
        assert [each.emit["v"] for each in match(rules, events)] == ([] if found is None else [found])
        assert len(match(rules, events).refused) == (found is None)
    engine = Engine(rules)
    engine.push_event(event)
    assert [each.emit["v"] for each in engine.flush().matches.matches()] == ([] if found is None else [found])


FORMS = ("json", "csv", "mapping", "frame of values", "frame of a column")
WIDE = [
    (2**53, 2.0**53), (2**53 + 1, 2.0**53), (2**60, 2.0**60), (2**24 + 1, 2.0**24 + 1), (2**31, 2.0**31),
    (-(2**63), -(2.0**63)), (2**64 - 1, 2.0**64), (2**64, 2.0**64), (2**70, 2.0**70), (0, 0.0),
    (Decimal(2**53 + 1), 2.0**53), (Decimal("0.1"), 0.1),
]  # fmt: skip


def taken(kind, value, form):
    """What a field of a declared type has of a value that comes in one form; [] where it is refused."""
    declared = f'name: a, fields: {{v: "{kind}"}}'
    if form in ("json", "csv"):
        text = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
        body = b'{"timestamp": 1, "v": %s}' % text.replace("True", "true").encode()
        if form == "csv":
            declared += ", decoder: {name: csv, columns: [timestamp, v]}"
            body = b'1,"%s"' % text.replace("True", "true").encode()
        return [row["v"] for row in read(f"{{{declared}}}", message(body))[0]]
    rules = load_rules(
        f"streams: [{{{declared}}}]\nrules: [{{name: r, seq: [{{as: x, stream: a}}], emit: {{v: x.v}}}}]"
    )
    event = {"timestamp": 1, "key": "k", "v": value}
    column = {name: [each] for name, each in event.items()}
    if form == "frame of a column":
        column["v"] = pa.array([value])
    events = [event] if form == "mapping" else [Frame.from_columns("a", "", column)]
    found = [each.emit["v"] for each in match(rules, events)]
    return [orjson.loads(each) if isinstance(value, list) else each for each in found]


def in_a_column(value):
    number = value[0] if isinstance(value, list) else value
    return not isinstance(number, int) or -(2**63) <= number < 2**63


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_a_declared_float_takes_every_number_as_the_nearest_one_by_every_door(kind, form):
    for value, nearest in WIDE:
        if form != "frame of a column" or in_a_column(value):
            expected = float(np.float32(nearest)) if kind == "float32" else nearest
            assert taken(kind, value, form) == [expected], value
    assert taken(kind, True, form) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_declared_list_of_numbers_takes_every_number_and_no_boolean_by_every_door(form):
    for value, nearest in WIDE:
        if form != "frame of a column" or in_a_column(value):
            assert taken("list<float32>", [value], form) == [[float(np.float32(nearest))]], value
    assert taken("list<float32>", [True], form) == []
    assert taken("list<float32>", [], form) == [[]]


def test_events_with_and_without_ids_keep_the_types_of_their_values():
    rules = load_rules("rules: [{name: r, seq: [{as: x, stream: a}], emit: {v: x.v}}]")
    values = [False, False, 1, 1.5, "text", "false", None, 2**63]
    ids = [f"73ef885b-fdf0-87c8-90be-1d60884f4e8{number}" if number % 2 else None for number in range(len(values))]
    events = [
        {"stream": "a", "timestamp": at, "key": "k", "v": value, "event_id": own}
        for at, (value, own) in enumerate(zip(values, ids, strict=True))
    ]
    expected = [(type(value), value) for value in values]
    found = sorted(match(rules, events), key=lambda each: each.time_us)
    assert [(type(each.emit["v"]), each.emit["v"]) for each in found] == expected
    engine = Engine(rules)
    for event in events:
        engine.push_event(event)
    found = sorted(engine.flush().matches.matches(), key=lambda each: each.time_us)
    assert [(type(each.emit["v"]), each.emit["v"]) for each in found] == expected


def test_keys_that_are_equal_numbers_are_one_key():
    rules = load_rules("rules: [{name: r, by: key, within: 1s, seq: [{as: x, stream: a}, {as: y, stream: a}]}]")
    for first, second in ((7, 7.0), (7, "7"), (True, "true")):
        events = [{"timestamp": at, "key": key} for at, key in enumerate((first, second))]
        assert len(match(rules, events)) == 1
        rows, _, _ = read("{name: a}", *(message({"ts": 1, "key": key}, key=None) for key in (first, second)))
        assert rows[0]["key"] == rows[1]["key"]


def test_declared_types_and_paths_hold_for_mappings_given_to_python():
    rules = load_rules(
        f"streams:\n  - {TYPED % ''}\n"
        "rules: [{name: r, by: who, seq: [{as: x, stream: a}], emit: {note: x.note}}]"
    )
    events = [{"timestamp": at, "who": 7, **value} for at, value in enumerate(VALUES)]
    found = match(rules, events)
    assert [(each.key, each.emit) for each in found] == [("7", {"note": "n"}), ("7", {"note": None})]
    assert [each.reason for each in found.refused] == [
        "field 'value' is 'n/a'; expected float64",
        "field 'note' is 3; expected string",
    ]


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_events_pushed_one_by_one_are_read_as_declared(consistency):
    text = f"streams:\n  - {TYPED % ''}\n"
    text += "rules: [{name: r, by: who, seq: [{as: x, stream: a, where: \"note == 'n'\"}]}]"
    engine = Engine(load_rules(text), consistency=consistency)
    provisional = [
        each for at, value in enumerate(VALUES) for each in engine.push_event({"timestamp": at, "who": 7, **value})
    ]
    assert len(provisional) == (consistency == "eventual")
    output = engine.flush()
    assert [each.key for each in output.matches.matches()] == ["7"]
    assert len(output.refused) == 2


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_four_events_with_one_code_as_event_id_are_four_events(consistency):
    rules = load_rules('rules: [{name: r, seq: [{as: x, stream: logons, where: "event_id == 4625"}]}]')
    engine = Engine(rules, consistency=consistency)
    for at in range(4):
        engine.push_event({"stream": "logons", "timestamp": at, "key": "u", "event_id": 4625, "seq": at})
    assert len(engine.flush().matches.matches()) == 4
    assert engine.duplicates == 0
