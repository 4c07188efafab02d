"""What users reported about values: text beside numbers, large integers, sums, NaN, and columns of other writers."""

from __future__ import annotations

from base64 import b64decode
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte import Engine, load_rules, match
from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

CASES = Path(__file__).parent / "real"
Emitted = list[tuple[str, dict[str, Any]]]


def offline(name: str) -> tuple[Emitted, list[str]]:
    """Rule and emitted values of each match of a log, and the reasons of its dead letters."""
    _, outputs = run_rules(load_rules(CASES / name / "rule.yaml"), [CASES / name / "log.jsonl"], lateness_us=1_000_000)
    found: Emitted = []
    reasons = []
    for output in outputs:
        bodies = [orjson.loads(record.value) for record in output.multi_events]
        found += [(body["correlation_rule"], body.get("metadata", {})) for body in bodies]
        reasons += [letter.reason for letter in output.dead_letters]
    return found, reasons


def embedded(name: str) -> Emitted:
    """The same for the log's events as mappings, pushed one by one."""
    rules = load_rules(CASES / name / "rule.yaml")
    lines = [orjson.loads(line) for line in (CASES / name / "log.jsonl").read_bytes().splitlines()]
    engine = Engine(rules)
    for number, line in enumerate(lines):
        body = {} if "NaN" in line["payload"] else orjson.loads(line["payload"])
        engine.push_event({"stream": line["topic"].removeprefix("mono."), "key": line["key"], **body,
                           "timestamp": number})  # fmt: skip
    return [(found.rule, dict(found.emit)) for found in engine.flush().matches]


EXPECTED: dict[str, Emitted] = {
    "text_beside_numbers": [("high", {"v": 5}), ("high", {"v": 7})],
    "large_integer_beside_a_fraction": [("exact", {"v": 2**53 + 1})],
    "text_in_a_mean": [("hot", {"m": 6.0, "s": 12.0, "n": 4})],
    "sum_beyond_63_bits": [
        ("total", {"total": 12 * 10**18, "mean": 4e18, "again": 8 * 10**18, "beyond": 3.2e19}),
    ],
    "integers_and_fractions_of_two_streams": [("either", {"v": 2**53 + 1}), ("either", {"v": 0.5})],
    "true_beside_numbers": [("is_on", {"v": True}), ("is_one", {"v": 1}), ("is_one", {"v": 1.0})],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_value_keeps_its_own_type(name: str) -> None:
    found, reasons = offline(name)
    assert repr(found) == repr(EXPECTED[name])
    assert reasons == []
    assert repr(sorted(embedded(name), key=repr)) == repr(sorted(EXPECTED[name], key=repr))


def test_a_value_that_is_not_of_the_declared_type_refuses_its_event_alone() -> None:
    found, reasons = offline("declared_number_is_text")
    assert repr(found) == repr([("high", {"v": 5.0}), ("high", {"v": 7.0})])
    assert reasons == ["field 'value' is 'n/a'; expected float64"]


def test_nan_and_infinity_in_json_are_what_the_policy_makes_of_them() -> None:
    found, reasons = offline("nan_with_a_policy")
    assert (len(found), reasons) == (2, [])
    found, reasons = offline("nan_without_a_policy")
    assert found == [("any", {"v": 1})]
    assert reasons == ["field 'value' is nan; expected a finite number"]


INTERVAL = pa.month_day_nano_interval()
INSIDE = "'[\\\"%s\\\"]'"


def run_ends(values: pa.Array) -> pa.Array:
    """The values run-end encoded, one row each."""
    return pa.RunEndEncodedArray.from_arrays(pa.array(np.arange(1, len(values) + 1), pa.int32()), values)


def union(kind: str, first: pa.Array, second: pa.Array) -> pa.Array:
    """Two rows, of a value of the one type and one of the other."""
    types = pa.array([0, 1], pa.int8())
    if kind == "sparse":
        return pa.UnionArray.from_sparse(types, [first, second])
    return pa.UnionArray.from_dense(types, pa.array([0, 0], pa.int32()), [first, second])


NAMED = 'rules: [{name: r, seq: [{as: a, stream: A, where: "x == %s"}], emit: {v: a.x}}]'


@pytest.mark.parametrize(
    ("column", "constant", "emitted"),
    [
        (pa.array(["x", "y"], pa.large_string()), "'x'", "x"),
        (pa.array(["x", "y"], pa.string_view()), "'x'", "x"),
        (pa.array(["x", "y"], pa.large_string()).dictionary_encode(), "'x'", "x"),
        (pa.array([7, 8]).dictionary_encode(), "7", 7),
        (pa.array([7, 8], pa.int8()), "7", 7),
        (pa.array([0.5, 8], pa.float16()), "0.5", 0.5),
        (pa.array([Decimal("0.1"), Decimal("8.0")]), "0.1", 0.1),
        (pa.array([Decimal(2**53 + 1), Decimal(1)], pa.decimal128(20, 0)), "9007199254740993", 2**53 + 1),
        (pa.array([datetime(1970, 1, 2), None], pa.timestamp("ns")), "86400000000", 86_400_000_000),
        (pa.array([datetime(1970, 1, 2), None], pa.timestamp("ms", "UTC")), "86400000000", 86_400_000_000),
        (pa.array([date(1970, 1, 2), None]), "86400000000", 86_400_000_000),
        (pa.array([timedelta(seconds=2), None]), "2000000", 2_000_000),
        (pa.array([b"\xff", b"\xfe"]), "'0xff'", "0xff"),
        (pa.array([{"a": 1}, None]), "'{\\\"a\\\":1}'", '{"a":1}'),
        (pa.array([[1, 2], [3]]), "'[1,2]'", "[1,2]"),
        (pa.array([True, False]), "True", True),
        (run_ends(pa.array(["x", "y"])), "'x'", "x"),
        (run_ends(pa.array(["x", None], pa.string_view())), "'x'", "x"),
        (run_ends(pa.array(["x", "y"]).dictionary_encode()), "'x'", "x"),
        (run_ends(pa.array([2, 3], pa.duration("s"))), "2000000", 2_000_000),
        (run_ends(pa.array([[1], [2]])), "'[1]'", "[1]"),
        (run_ends(pa.array(["w", "x", "y"])).slice(1), "'x'", "x"),
        (union("dense", pa.array([7]), pa.array(["x"])), "7", 7),
        (union("dense", pa.array(["7"]), pa.array([7])), "7", 7),
        (union("sparse", pa.array([0.5, None]), pa.array([None, True])), "0.5", 0.5),
        (union("dense", pa.array([2], pa.duration("s")), pa.array([b"\xff"])), "'0xff'", "0xff"),
        (union("dense", pa.array([{"a": 1}]), pa.array([None], pa.int64())), "'{\\\"a\\\":1}'", '{"a":1}'),
        (pa.array([(1, -2, 3_500_000_000), None], INTERVAL), "'P1M-2DT3.5S'", "P1M-2DT3.5S"),
        (pa.array([[(0, 0, 1)], None], pa.list_(INTERVAL)), INSIDE % "P0M0DT0.000000001S", '["P0M0DT0.000000001S"]'),
        (pa.StructArray.from_arrays([run_ends(pa.array([1, 2]))], ["a"]), "'{\\\"a\\\":1}'", '{"a":1}'),
        (pa.array([["x"], None], pa.list_(pa.string_view())), "'[\\\"x\\\"]'", '["x"]'),
    ],
    ids=lambda each: str(each.type) if isinstance(each, pa.Array) else "",
)  # fmt: skip
def test_columns_of_every_writer_are_read_as_their_values(column: pa.Array, constant: str, emitted: Any) -> None:
    rules = load_rules(NAMED % constant)
    columns = {"timestamp": np.arange(2), "key": ["k", "k"], "x": column}
    (found,) = match(rules, [Frame.from_columns("A", "run", columns)])
    assert repr(found.emit["v"]) == repr(emitted)
    output = fed(rules, columns)
    (record,) = output.multi_events
    assert orjson.loads(record.value)["metadata"] == {"v": emitted}


def fed(rules: Any, *frames: dict[str, Any]) -> DomainOutput:
    """Output of a worker's domain for frames as other programs write them, with the end of the input."""
    domain = Domain(0, [DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"])
    output = DomainOutput()
    for offset, columns in enumerate(frames):
        frame = Frame.from_columns("A", "run", {"timestamp": [0], "key": ["k"]}, first_seq=offset)
        # As another writer would: the columns with their own types, and the metadata of a frame.
        arrays = {name: value if isinstance(value, pa.Array) else pa.array(value) for name, value in columns.items()}
        arrays["key"] = arrays["key"].cast(pa.large_string())
        arrays["type"] = pa.array(["t"] * len(arrays["key"]), pa.string_view())
        schema = pa.schema({name: array.type for name, array in arrays.items()})
        meta = pa.ipc.open_stream(encode_frame(frame)).schema.metadata
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema.with_metadata(meta)) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema.with_metadata(meta)))
        output.extend(domain.feed("mono.A", [RawRecord(offset, 0, None, bytes(sink.getvalue()))]))
    output.extend(domain.flush())
    return output


@pytest.mark.parametrize(
    "column",
    [
        pa.array([Decimal("1.5")]),
        pa.array([timedelta(seconds=1)]),
        pa.array([b"\xff"]),
        pa.array(["x"], pa.string_view()),
        pa.array([{"a": Decimal("1.5"), "b": [b"\xff"], "c": time(1)}]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([None], pa.null()),
        run_ends(pa.array([b"\xff"])),
        pa.array([(1, 2, 3)], INTERVAL),
        pa.UnionArray.from_sparse(pa.array([1], pa.int8()), [pa.array([1]), pa.array(["x"])]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_late_event_of_any_type_is_put_out_as_late(column: pa.Array) -> None:
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    output = fed(rules, {"timestamp": [5_000_000], "key": ["k"]}, {"timestamp": [1], "key": ["k"], "x": column})
    (late,) = output.late
    assert "x" in orjson.loads(late.value)["metadata"]
    assert not output.dead_letters


def test_a_time_that_microseconds_cannot_hold_is_a_dead_letter() -> None:
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    output = fed(rules, {"timestamp": [1], "key": ["k"], "x": pa.array([2**62], pa.timestamp("s"))})
    (letter,) = output.dead_letters
    assert "overflow" in letter.reason
    assert b64decode(letter.payload_b64 or "").startswith(b"\xff\xff\xff\xff")


def test_a_run_end_encoded_column_of_too_many_rows_is_a_dead_letter_that_takes_no_memory() -> None:
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    rows = 1 << 30
    many = {
        name: pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), values)
        for name, values in (("timestamp", pa.array([1])), ("key", pa.array(["k"])))
    }
    frame = Frame.from_columns("A", "run", {"timestamp": [0], "key": ["k"]})
    schema = pa.schema({name: column.type for name, column in many.items()})
    schema = schema.with_metadata(pa.ipc.open_stream(encode_frame(frame)).schema.metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(list(many.values()), schema=schema))
    domain = Domain(0, [DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"])
    (letter,) = domain.feed("mono.A", [RawRecord(0, 0, None, bytes(sink.getvalue()))]).dead_letters
    assert f"a frame holds {2 * rows:,} values or more; expected at most" in letter.reason
