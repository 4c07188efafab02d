"""Avro messages are bounded before they are read: in their levels, and in values that take no bytes."""

import io
import json
import subprocess
import sys

import fastavro
import pytest
from hypothesis import given, strategies

from astrocyte.schemas.avro import Bounds
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.values.single import MOST_LEVELS

NODE = {
    "type": "record",
    "name": "Node",
    "namespace": "trees",
    "fields": [
        {"name": "value", "type": ["null", "long", "string", "double", {"type": "fixed", "name": "F", "size": 3}]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "next", "type": ["null", "Node"]},
        {"name": "children", "type": {"type": "array", "items": "Node"}},
        {"name": "named", "type": {"type": "map", "values": "trees.Node"}},
        {"name": "nothing", "type": {"type": "array", "items": "null"}},
    ],
}
ROOM = {
    "type": "record",
    "name": "Room",
    "fields": [
        {"name": "room", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "values", "type": {"type": "array", "items": ["null", "double"]}},
        {"name": "where", "type": {"type": "record", "name": "P", "fields": [{"name": "x", "type": "float"}]}},
        {"name": "back", "type": ["null", "P"]},
        {"name": "tags", "type": {"type": "map", "values": "null"}},
    ],
}


def bounds(schema) -> Bounds:
    named: dict = {}
    return Bounds(fastavro.parse_schema(schema, named_schemas=named), named)


def encoded(schema, value) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def node(value=None, **parts) -> dict:
    return {"value": value, "kind": "A", "next": None, "children": [], "named": {}, "nothing": []} | parts


def integer(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def record(*types) -> dict:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": each} for i, each in enumerate(types)]}


def doubled(times: int) -> dict:
    """A record of 2 to the power of ``times`` empty records."""
    inner = {"type": "record", "name": "R0", "fields": []}
    for number in range(1, times + 1):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"R{number - 1}"}]
        inner = {"type": "record", "name": f"R{number}", "fields": fields}
    return inner


def test_a_schema_that_bounds_its_messages_costs_nothing():
    assert bounds(ROOM).is_closed
    assert bounds(record({"type": "array", "items": record("long", *["null"] * 60) | {"name": "I"}})).is_closed


@pytest.mark.parametrize(
    "schema",
    [
        NODE,
        record({"type": "array", "items": "null"}),
        record({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}),
        record({"type": "array", "items": {"type": "record", "name": "E", "fields": [{"name": "x", "type": "null"}]}}),
        record({"type": "map", "values": doubled(10)}),
        doubled(40),
    ],
)
def test_a_schema_that_does_not_bound_its_messages_is_known(schema):
    assert not bounds(schema).is_closed


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "fixed", "name": "F", "size": 0},
        {"type": "record", "name": "E", "fields": [{"name": "x", "type": "null"}]},
        doubled(12),
    ],
)
@pytest.mark.parametrize("count", [10**9, -(10**9), 2**62])
def test_many_items_without_bytes_are_refused_and_some_are_read(items, count):
    schema = record({"type": "array", "items": items})
    block = integer(count) + (integer(0) if count < 0 else b"")
    with pytest.raises(InvalidEvent, match=r"more than 6\d,\d+ values in a message of \d+ bytes"):
        bounds(schema).check(block + integer(0), 0)
    bounds(schema).check(integer(5) + integer(0), 0)


def test_many_blocks_of_items_without_bytes_are_refused_together():
    schema = record({"type": "array", "items": "null"})
    bounds(schema).check(integer(1000) * 60 + integer(0), 0)
    with pytest.raises(InvalidEvent, match="items without bytes"):
        bounds(schema).check(integer(1000) * 90 + integer(0), 0)


def test_values_without_bytes_outside_of_lists_are_bounded_as_well():
    with pytest.raises(InvalidEvent, match="more than 65,536 values in a message of 0 bytes"):
        bounds(doubled(40)).check(b"", 0)


def test_levels_are_those_of_json():
    def deep(levels: int) -> bytes:
        value = node()
        for _ in range(levels - 2):
            value = node(next=value)
        return encoded(NODE, value)

    bounds(NODE).check(deep(MOST_LEVELS), 0)
    with pytest.raises(InvalidEvent, match=f"nested too deeply; expected at most {MOST_LEVELS} levels"):
        bounds(NODE).check(deep(MOST_LEVELS + 1), 0)


@pytest.mark.parametrize(
    ("types", "data", "reason"),
    [
        (["string"], integer(-1), "a length or branch is -1"),
        ([["null", "long"]], integer(-1), "a length or branch is -1"),
        ([["null", "long"]], integer(2), "ends within its record"),
        (["string"], integer(2**62), "ends within its record"),
        (["string"], b"\x86" + b"\x80" * 9 + b"\x04abc", "more than 64 bits"),
        ([{"type": "array", "items": "long"}], integer(9) + b"\2\2", "has 9 items of 1 bytes at least, but 2 bytes"),
        (["double"], b"1234567", "ends within its record"),
        (["long"], b"\x80\x80", "ends within its record"),
    ],
)
def test_a_message_that_a_reader_would_take_otherwise_is_refused(types, data, reason):
    schema = record({"type": "array", "items": "null"}, *types)
    with pytest.raises(InvalidEvent, match=reason):
        bounds(schema).check(integer(0) + data, 0)


def values():
    return strategies.none() | strategies.integers(-(2**63), 2**63 - 1) | strategies.text() | strategies.floats()


def nodes():
    return strategies.recursive(
        strategies.builds(node, values()),
        lambda inner: strategies.builds(
            node,
            values(),
            kind=strategies.sampled_from("AB"),
            next=strategies.none() | inner,
            children=strategies.lists(inner, max_size=3),
            named=strategies.dictionaries(strategies.text(max_size=4), inner, max_size=3),
            nothing=strategies.lists(strategies.none(), max_size=90),
        ),
        max_leaves=5,
    )


@given(nodes(), strategies.binary(max_size=5))
def test_what_a_writer_writes_is_in_bounds_and_nothing_shorter(value, before):
    data = encoded(NODE, value)
    bounds(NODE).check(before + data, len(before))
    with pytest.raises(InvalidEvent):
        bounds(NODE).check(before + data[:-1], len(before))


READER = """
import sys
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.json.reader import RawRecord
text = "streams: [{name: a, decoder: {name: avro, schemas: '%s'}}]" % sys.argv[1]
decoders = Decoders(Contracts(load_rules(text).streams))
node = bytes([0, 0, 2])                                       # null, the symbol A, and another node
for number, value in ((1, node * 30_000), (2, bytes([0x80, 0xA8, 0xD6, 0xB9, 7, 0]))):
    record = RawRecord(0, 0, b"k", bytes([0, 0, 0, 0, number]) + value)
    _, letters = decode_chunk("mono.a", 0, [record], decoders=decoders)
    print(letters[0].reason)
"""


def test_deep_and_empty_messages_cost_themselves_only(tmp_path):
    (tmp_path / "1.avsc").write_text(json.dumps(NODE))
    (tmp_path / "2.avsc").write_text(json.dumps(record({"type": "array", "items": "null"})))
    done = subprocess.run([sys.executable, "-c", READER, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "nested too deeply; expected at most 254 levels",
        "more than 66,240 values in a message of 11 bytes; such lists have items without bytes (nulls, empty records)",
    ]
