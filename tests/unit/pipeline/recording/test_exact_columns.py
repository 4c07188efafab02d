"""Columns that distinguish events: decimals of a frame or file keep their digits, and bytes are text or hexadecimal."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import load_rules, match
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.values.single import distinguishing, key_text
from tests.support.logs import write_log

T0_US = 1_767_225_600_000_000
BY_FIELD = """
rules:
  - name: two
    by: account
    within: 1h
    seq: [{as: a, stream: S}, {as: b, stream: S}]
    emit: {account: b.account}
"""
DECLARED = {
    "by": "",
    "key": "streams: [{name: S, key: account}]",
    "id": "streams: [{name: S, id: account}]",
    "key of text": "streams: [{name: S, key: account, fields: {account: string}}]",
}
WIDE = [Decimal(12345678901234567890123456789), Decimal(12345678901234567890123456788)]
COLUMNS = {
    "decimal128": (pa.array([*WIDE, WIDE[0]], pa.decimal128(38, 0)), str(WIDE[0])),
    "decimal256": (pa.array([*WIDE, WIDE[0]], pa.decimal256(76, 0)), str(WIDE[0])),
    "whole with a scale": (
        pa.array([Decimal(2**53 + 1), Decimal(2**53), Decimal(2**53 + 1)], pa.decimal128(38, 2)),
        2**53 + 1,
    ),
    "fractions": (
        pa.array([Decimal("0.12345678901234567"), Decimal("0.12345678901234568"), Decimal("0.12345678901234567")]),
        "0.12345678901234567",
    ),
    "short fractions": (pa.array([Decimal("1.10"), Decimal("1.20"), Decimal("1.10")]), 1.1),
    "decimals in a dictionary": (
        pa.array([*WIDE, WIDE[0]], pa.decimal128(38, 0)).dictionary_encode(),
        str(WIDE[0]),
    ),
    "text as bytes": (pa.array([b"pump-1", b"pump-2", b"pump-1"]), "pump-1"),
    "large bytes": (pa.array([b"pump-1", b"pump-2", b"pump-1"], pa.large_binary()), "pump-1"),
    "views of bytes": (pa.array([b"pump-1", b"pump-2", b"pump-1"], pa.binary_view()), "pump-1"),
    "bytes that are no text": (pa.array([b"\x00\x01", b"\x00\x02", b"\x00\x01"], pa.binary(2)), "0x0001"),
}  # fmt: skip


NO_TEXT = ("short fractions", "key of text")
"""A float, which is refused where text is declared."""


def columns_of(column: pa.Array) -> dict[str, pa.Array]:
    times = pa.array([T0_US, T0_US + 1, T0_US + 2])
    return {"timestamp": times, "key": pa.array(["k"] * 3).dictionary_encode(), "account": column}


def emitted(rules: str, path) -> list[object]:
    _, outputs = run_rules(load_rules(rules), [path], lateness_us=0)
    bodies = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    return [body["metadata"]["account"] for body in bodies]


def frame_log(tmp_path, column: pa.Array):
    """A log with a frame of another writer: its columns are as they are, unlike those of `encode_frame`."""
    columns = columns_of(column) | {"type": pa.array(["S"] * 3).dictionary_encode()}
    batch = pa.record_batch(columns).replace_schema_metadata({"stream": "S", "run": "run"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    record = ConsumedRecord("mono.S", 0, 0, T0_US // 1000, None, bytes(sink.getvalue()))
    return write_log(tmp_path / "log.jsonl", [record], partitions=1)


@pytest.mark.parametrize(
    ("name", "declared"),
    [(name, each) for name in COLUMNS for each in ("by", "key", "key of text") if (name, each) != NO_TEXT],
)
def test_what_distinguishes_events_is_exact_by_every_entrance(tmp_path, name, declared):
    column, expected = COLUMNS[name]
    rules = DECLARED[declared] + BY_FIELD
    expected = str(expected) if declared == "key of text" else expected
    path = tmp_path / "events.parquet"
    kind = column.type
    stored = column.dictionary_decode() if pa.types.is_dictionary(kind) else column
    pq.write_table(pa.table(columns_of(stored.cast(pa.binary()) if kind == pa.binary_view() else stored)), path)
    assert emitted(rules, path) == [expected]
    assert emitted(rules, frame_log(tmp_path, column)) == [expected]
    mappings = [{"stream": "S", **row} for row in pa.table(columns_of(column)).to_pylist()]
    assert [each.emit["account"] for each in match(load_rules(rules), mappings)] == [expected]


@pytest.mark.parametrize("column", [COLUMNS["decimal256"][0], COLUMNS["fractions"][0], COLUMNS["text as bytes"][0]])
def test_a_declared_id_is_exact(tmp_path, column):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns_of(column)), path)
    run, outputs = run_rules(load_rules(DECLARED["id"] + BY_FIELD), [path], lateness_us=0)
    list(outputs)
    assert (run.counters.received, run.counters.duplicate) == (3, 1)


@pytest.mark.parametrize("name", ["text as bytes", "bytes that are no text"])
def test_bytes_that_are_declared_to_be_text_are_text_wherever_they_stand(tmp_path, name):
    column, expected = COLUMNS[name]
    rules = "streams: [{name: S, fields: {account: string}}]\n"
    rules += f"rules: [{{name: one, seq: [{{as: b, stream: S, where: \"account == '{expected}'\"}}], "
    rules += "emit: {account: b.account}}]"
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns_of(column)), path)
    assert emitted(rules, path) == [expected, expected]
    assert emitted(rules, frame_log(tmp_path, column)) == [expected, expected]
    mappings = [{"stream": "S", **row} for row in pa.table(columns_of(column)).to_pylist()]
    assert [each.emit["account"] for each in match(load_rules(rules), mappings)] == [expected, expected]


def test_a_row_of_parquet_is_read_as_its_own_stream_declares_and_not_as_another_does(tmp_path):
    number = Decimal("12345678901234567890.5")
    columns = {
        "stream": pa.array(["A", "B", "A", "C"]),
        "timestamp": pa.array([T0_US + n for n in range(4)]),
        "key": pa.array(["k"] * 4),
        "account": pa.array([number, Decimal(5), Decimal("0.5"), number]),
    }
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), path)
    rules = (
        "streams: [{name: A, fields: {account: float64}}, {name: B, fields: {account: int64}}, "
        "{name: C, fields: {account: string}}]\n"
        "rules: [{name: one, seq: [{as: b, stream: [A, B, C]}], emit: {account: b.account}}]"
    )
    assert emitted(rules, path) == [float(number), 5, 0.5, str(number)]


@pytest.mark.parametrize(("name", "expected"), [("fractions", 0.12345678901234567), ("text as bytes", "pump-1")])
def test_other_decimals_and_bytes_are_as_events_carry_them(tmp_path, name, expected):
    rules = "rules: [{name: one, seq: [{as: b, stream: S}], emit: {account: b.account}}]"
    assert emitted(rules, frame_log(tmp_path, COLUMNS[name][0]))[0] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("5.00"), "5"), (Decimal("-0.10"), "-0.1"), (Decimal("1E+3"), "1000"), (Decimal("NaN"), None),
        (Decimal("0.1000000000000000055511151231257827"), "0.1000000000000000055511151231257827"),
        (Decimal("1e-7"), "1e-07"), (1e-7, "1e-07"), (Decimal(2**64), str(2**64)), (Decimal("Infinity"), "inf"),
        (b"ab", "ab"), (True, "true"), (2**70, str(2**70)),
    ],
)  # fmt: skip
def test_equal_numbers_have_equal_keys_and_others_do_not(value, expected):
    assert key_text(value) == expected
    assert key_text(distinguishing(value)) == expected
