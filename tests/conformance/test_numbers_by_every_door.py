"""A number is the same value by every door, also inside lists and objects, and also where it tells events apart."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import Engine, Frame, RuleSet, load_rules, match
from astrocyte.agents.engine.entrance import Entrance
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.pipeline.embed.encoding import StreamEncoder, messages_of
from astrocyte.pipeline.recording.event_files import EventFiles
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records
from astrocyte.schemas.json.text import dumps
from astrocyte.schemas.values.single import json_text

T0_US: Final = 1_767_225_600_000_000
EXACT: Final = Contracts(correlated={"S": ["v"]})
PLAIN: Final = Contracts()

Doors = dict[str, list[Any]]


def shown(frames: Iterable[Frame]) -> list[Any]:
    """The values of the field as rules see them."""
    found = [value for frame in frames for value in frame.values("v")]
    return [value if isinstance(value, str | int | float | None) else json_text(value) for value in found]


def of_frame(frame: Frame, contracts: Contracts) -> list[Any]:
    """Of a frame that is given to an engine."""
    entrance = Entrance(CATALOG)
    entrance.update(RuleSet(), contracts)
    return shown([entrance.admit(frame, None, typed=True)[0]])


def of_messages(values: Iterable[bytes], contracts: Contracts) -> list[Any]:
    records = [RawRecord(at, T0_US // 1000, b"k", value) for at, value in enumerate(values)]
    frames, letters = decode_chunk("mono.S", 0, records, decoders=Decoders(contracts))
    assert letters == []
    return shown(each.frame for each in frames)


def of_file(path: Path, contracts: Contracts) -> list[Any]:
    values = [record.value for record in EventFiles([path], contracts, ["S"]).records()]
    return of_messages(values, contracts)


def of_json(strings: Sequence[str], contracts: Contracts, folder: Path, *, in_csv: bool) -> Doors:
    """What the values are that a JSON text writes, and a cell of CSV where that says the same."""
    lines = [f'{{"timestamp":{T0_US},"key":"k","v":{text}}}'.encode() for text in strings]
    # Columns of other numbers beside it, and other members, are read by other readers.
    beside = [line[:-1] + b',"w":0.12345678901234567}' for line in lines]
    odd = [line[:-1] + (b',"w":1}' if at % 2 else b"}") for at, line in enumerate([*lines, *lines])]
    (folder / "events.jsonl").write_bytes(b"\n".join(lines))
    declared = Contracts(load_rules(RULES_OF_W).streams, correlated={"S": ["w", *contracts.exact.get("S", ())]})
    found = {
        "JSON": of_messages(lines, contracts),
        "JSON beside long digits": of_messages(beside, contracts),
        "JSON beside long digits that tell events apart": of_messages(beside, declared),
        "JSON of several forms": of_messages(odd, contracts)[: len(lines)],
        "JSON one by one": [of_messages([line], contracts)[0] for line in lines],
        "JSON lines": of_file(folder / "events.jsonl", contracts),
    }
    if in_csv:
        (folder / "events.csv").write_text("\n".join(["timestamp,key,v", *(f"{T0_US},k,{text}" for text in strings)]))
        found["CSV"] = of_file(folder / "events.csv", contracts)
    return found


RULES_OF_W: Final = "rules: [{name: r, by: w, seq: [{as: a, stream: S}]}]"


def of_python(values: Sequence[Any], contracts: Contracts) -> Doors:
    """What Python values are as mappings, as a column, and as what a publisher or a decoder writes of them."""
    events = [{"stream": "S", "timestamp": T0_US, "key": "k", "v": value} for value in values]
    own = {"timestamp": [T0_US] * len(values), "key": ["k"] * len(values)}
    objects = np.empty(len(values), object)
    objects[:] = values
    frame = Frame.from_columns("S", "run", own | {"v": values})
    mixed = Frame.from_columns(
        "S", "run", {"timestamp": [T0_US] * (len(values) + 1), "key": ["k"] * (len(values) + 1), "v": [*values, "x"]}
    )
    encoder = StreamEncoder("S")
    emitted = [encoder.encode(event, "k", at) for at, event in enumerate(events)]
    return {
        "mappings": shown(frames_of(events, ["S"], contracts=contracts)),
        "list": of_frame(frame, contracts),
        "list of one row": [of_frame(frame.slice(at, at + 1), contracts)[0] for at in range(len(values))],
        "list with text": of_frame(mixed, contracts)[:-1],
        "array of objects": of_frame(Frame.from_columns("S", "run", own | {"v": objects}), contracts),
        "list in a topic": of_messages([encode_frame(frame)], contracts),
        "list as JSON": of_messages([each.value for each in frame_to_records(frame)], contracts),
        "publisher": of_messages([each.value for each in messages_of(emitted, "run")], contracts),
        "decoder": of_messages([dumps(event) for event in events], contracts),
    }


def of_arrow(column: pa.Array, contracts: Contracts, folder: Path) -> Doors:
    """What an Arrow column is as one of a frame, as one that pyarrow wrote to a topic, and as one of a Parquet file."""
    rows = len(column)
    own = {"timestamp": pa.array([T0_US] * rows), "key": pa.array(["k"] * rows).dictionary_encode()}
    frame = Frame.from_columns("S", "run", own | {"v": column})
    batch = pa.RecordBatch.from_pydict(own | {"type": pa.array(["S"] * rows).dictionary_encode(), "v": column})
    sink = pa.BufferOutputStream()
    batch = batch.replace_schema_metadata({"stream": "S", "run": "run"})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    found = {
        "column": of_frame(frame, contracts),
        "column in a topic": of_messages([encode_frame(frame)], contracts),
        "column as JSON": of_messages([each.value for each in frame_to_records(frame)], contracts),
        "column by pyarrow": of_messages([bytes(sink.getvalue())], contracts),
    }
    if not pa.types.is_run_end_encoded(column.type):
        pq.write_table(pa.table(own | {"v": column}), folder / "events.parquet")
        found["Parquet"] = of_file(folder / "events.parquet", contracts)
    return found


def of_debezium(values: Sequence[Decimal], scale: int, contracts: Contracts) -> list[Any]:
    field = {"field": "v", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal",
             "parameters": {"scale": str(scale)}}  # fmt: skip
    schema = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": [field]}]}
    whole = [int(value.scaleb(scale)) for value in values]
    rows = [b64encode(each.to_bytes(20, "big", signed=True)).decode() for each in whole]
    bodies = [{"op": "c", "source": {"ts_ms": T0_US // 1000}, "after": {"v": row}} for row in rows]
    return of_messages([orjson.dumps({"schema": schema, "payload": body}) for body in bodies], contracts)


def agree(found: Doors, expected: Sequence[Any]) -> None:
    wrong = {door: values for door, values in found.items() if repr(values) != repr(list(expected))}
    assert wrong == {}, expected


LONG: Final = "0.12345678901234567"
WIDE: Final = 12345678901234567890123
NUMBERS: Final[dict[str, tuple[str, Any, Any, Any]]] = {
    "integer": ("5", 5, 5, 5),
    "negative": ("-7", -7, -7, -7),
    "of 64 bits": ("9007199254740993", 2**53 + 1, 2**53 + 1, 2**53 + 1),
    "of 64 bits without a sign": ("18446744073709551615", 2**64 - 1, 2**64 - 1, 2**64 - 1),
    "beyond 64 bits": (str(WIDE), WIDE, float(WIDE), str(WIDE)),
    "below 64 bits": (str(-WIDE), -WIDE, -float(WIDE), str(-WIDE)),
    "fraction": ("1.5", 1.5, 1.5, 1.5),
    "whole fraction": ("5.0", 5.0, 5.0, 5.0),
}
"""JSON text, Python value, and what it is in an ordinary field and in one that tells events apart."""
DECIMALS: Final[dict[str, tuple[str, Any, Any, Any]]] = {
    "short": ("1.10", Decimal("1.10"), 1.1, 1.1),
    "long": (LONG, Decimal(LONG), float(LONG), LONG),
    "long and whole": ("9007199254740993.00", Decimal("9007199254740993.00"), 2.0**53, 2**53 + 1),
    "wide": (f"{WIDE}.25", Decimal(f"{WIDE}.25"), float(WIDE), f"{WIDE}.25"),
    "wide and whole": (f"{WIDE}.00", Decimal(f"{WIDE}.00"), float(WIDE), str(WIDE)),
    "tiny": ("1.2345678901234567891e-30", Decimal("1.2345678901234567891e-30"), 1.2345678901234567891e-30,
             "0.0000000000000000000000000000012345678901234567891"),
}  # fmt: skip


@pytest.mark.parametrize("number", [0, 1], ids=["ordinary", "telling apart"])
def test_numbers_are_the_same_by_every_door(number: int, tmp_path: Path) -> None:
    contracts = (PLAIN, EXACT)[number]
    for table in (NUMBERS, DECIMALS):
        strings, values, *both = zip(*table.values(), strict=True)
        found = of_json(strings, contracts, tmp_path, in_csv=True) | of_python(values, contracts)
        agree(found, both[number])


@pytest.mark.parametrize("number", [0, 1], ids=["ordinary", "telling apart"])
@pytest.mark.parametrize("name", DECIMALS)
def test_so_are_columns_of_decimals(name: str, number: int, tmp_path: Path) -> None:
    _, value, *both = DECIMALS[name]
    contracts = (PLAIN, EXACT)[number]
    column = pa.array([value, value, None], pa.decimal256(76, 50))
    doubled = [both[number], both[number], None]
    agree(of_arrow(column, contracts, tmp_path), doubled)
    agree(of_arrow(column.dictionary_encode(), contracts, tmp_path), doubled)
    agree({"Debezium": of_debezium([value], max(0, -value.as_tuple().exponent), contracts)}, doubled[:1])
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), column.take(pa.array([0, 2])))
    agree(of_arrow(ends, contracts, tmp_path), doubled)


@pytest.mark.parametrize("contracts", [PLAIN, EXACT], ids=["ordinary", "telling apart"])
def test_numbers_inside_lists_and_objects_are_those_of_ordinary_fields(contracts: Contracts, tmp_path: Path) -> None:
    for table in (NUMBERS, DECIMALS):
        for text, value, ordinary, _ in table.values():
            inside = orjson.dumps(ordinary).decode()
            strings = [f"[{text}, null]", f'{{"a": [{text}]}}']
            expected = [f"[{inside},null]", f'{{"a":[{inside}]}}']
            found = of_json(strings, contracts, tmp_path, in_csv=False)
            agree(found | of_python([[value, None], {"a": [value]}], contracts), expected)
            if isinstance(value, Decimal):
                column = pa.array([[value, None]], pa.list_(pa.decimal256(76, 50)))
                agree(of_arrow(column, contracts, tmp_path), expected[:1])
                column = pa.array([{"a": [value]}], pa.struct([("a", pa.list_(pa.decimal256(76, 50)))]))
                agree(of_arrow(column, contracts, tmp_path), expected[1:])


def test_decimals_of_a_column_match_as_those_of_mappings_do() -> None:
    values = [Decimal(f"{WIDE}"), Decimal(f"{WIDE + 1}"), Decimal(f"{WIDE}"), Decimal(LONG), None]
    rules = load_rules(
        "rules: [{name: two, by: v, within: 1h, seq: [{as: a, stream: S}, {as: b, stream: S}], emit: {v: b.v}}]"
    )
    times = [T0_US + row for row in range(len(values))]
    events = [
        {"stream": "S", "timestamp": time, "key": "k", "v": value} for time, value in zip(times, values, strict=True)
    ]
    frame = Frame.from_columns("S", "run", {"timestamp": times, "key": ["k"] * len(values), "v": values})
    assert frame.values("v") == [float(WIDE), float(WIDE + 1), float(WIDE), float(LONG), None]
    engine = Engine(rules)
    engine.push(frame)
    pushed = [each.emit for each in engine.flush().matches.matches()]
    assert pushed == [each.emit for each in match(rules, [frame])] == [each.emit for each in match(rules, events)]
    assert pushed == [{"v": str(WIDE)}]


def test_a_declared_integer_keeps_the_digits_of_a_column_of_decimals() -> None:
    rules = load_rules("""
streams: [{name: S, key: account, fields: {account: string, n: int64}}]
rules: [{name: r, by: account, seq: [{as: a, stream: S, where: n == 9007199254740993}], emit: {account: a.account}}]
""")
    columns = {"timestamp": [T0_US, T0_US + 1], "key": [Decimal(WIDE), WIDE + 1], "account": [Decimal(WIDE), WIDE + 1]}
    frame = Frame.from_columns("S", "run", columns | {"n": [Decimal("9007199254740993.0"), Decimal(2**53)]})
    assert frame.batch.column("key").to_pylist() == [str(WIDE), str(WIDE + 1)]
    assert [each.emit for each in match(rules, [frame])] == [{"account": str(WIDE)}]


def test_values_of_a_column_are_those_of_events_whatever_stands_beside_them() -> None:
    values = [Decimal("1.5"), 2**70, "a", True, None, Decimal("NaN"), 3, [Decimal(1)]]
    frame = Frame.from_columns("S", "run", {"timestamp": [T0_US] * 8, "key": list("abcdefgh"), "v": values})
    assert json.dumps(frame.values("v")) == json.dumps([1.5, 2.0**70, "a", True, None, float("nan"), 3, "[1]"])
    assert [row["v"] for row in frame.take(np.array([1, 4])).rows()] == [2.0**70, None]
    assert frame.settled(["v"]).values("v")[1] == str(2**70)


def test_a_number_with_an_exponent_is_no_integer_whatever_stands_beside_it(tmp_path: Path) -> None:
    text, nearest = "123456789012345.678e3", 123456789012345678.0
    agree(of_json([text], PLAIN, tmp_path, in_csv=True), [nearest])
    agree(of_json([f"[{text}]"], PLAIN, tmp_path, in_csv=False), [f"[{orjson.dumps(nearest).decode()}]"])
    agree(of_json([text], EXACT, tmp_path, in_csv=True), [123456789012345678])
