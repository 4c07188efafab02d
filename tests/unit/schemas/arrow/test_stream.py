"""Frames of damaged or hostile writers are refused before anything is unpacked or used."""

import resource
import struct

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.arrow.messages import holds_no_rows, unpacked_bytes
from astrocyte.schemas.arrow.stream import MOST_BYTES
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

META = {"stream": "A", "run": "r"}


def stream(batch: pa.RecordBatch, *, codec: str | None = None, repeated: int = 1, **meta: str) -> bytes:
    batch = batch.replace_schema_metadata(META | meta)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for _ in range(repeated):
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def batch(rows: int = 4, **columns: pa.Array) -> pa.RecordBatch:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["k"]))
    times = pa.array(np.full(rows, 1_700_000_000_000_000))
    return pa.record_batch({"timestamp": times, "key": text, "type": text, **columns})


def text_column(offsets: list[int], data: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32).tobytes()), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.utf8(), len(offsets) - 1, buffers)


def views(count: int, data: bytes) -> pa.Array:
    """Text of which each value is all of the data."""
    each = struct.pack("<i4sii", len(data), data[:4], 0, 0)
    return pa.Array.from_buffers(pa.string_view(), count, [None, pa.py_buffer(each * count), pa.py_buffer(data)])


def list_views(count: int, values: pa.Array) -> pa.Array:
    """Lists of which each has all of the values."""
    sizes = pa.array(np.full(count, len(values), np.int32))
    return pa.ListViewArray.from_arrays(pa.array(np.zeros(count, np.int32)), sizes, values)


def indices(*codes: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(["x", "y"]), safe=False)


LONG = "x" * 100_000
DAMAGED = {
    "text that is not UTF-8": (text_column([0, 1, 2, 3, 4], b"\xff\xfe\xfd\xfc"), "UTF8"),
    "offsets that go back": (text_column([0, 4, 2, 3, 4], b"abcd"), "offset"),
    "an index beyond the dictionary": (indices(0, 1, 0, 77), "out of bounds|index"),
    "an index before the dictionary": (indices(0, 1, 0, -5), "out of bounds|index"),
}
LARGE = {
    "a dictionary value that many rows name": pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(2000, np.int32)), pa.array([LONG])
    ),
    "a dictionary of a dictionary": pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(2000, np.int32)), pa.array([[LONG]], pa.list_(pa.utf8()))
    ),
    "text that many views name": views(2000, LONG.encode()),
    "a list that many views name": list_views(2000, pa.array(np.arange(10_000))),
    "a run of a large value": pa.RunEndEncodedArray.from_arrays(pa.array([2000], pa.int32()), pa.array([LONG])),
    "lists of a fixed size without values": pa.FixedSizeListArray.from_arrays(pa.nulls(2000 * 10_000), 10_000),
    "a struct of many nothings": pa.StructArray.from_arrays(
        [pa.nulls(2000)] * 5000, names=[f"a{number}" for number in range(5000)]
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_value_that_would_be_read_outside_its_memory_is_refused(name):
    column, said = DAMAGED[name]
    with pytest.raises(InvalidFrame, match=f"(?i){said}"):
        decode_frame(stream(batch(x=column)))


@pytest.mark.parametrize("name", LARGE)
def test_values_that_are_large_only_when_written_out_are_refused(name):
    payload = stream(batch(2000, x=LARGE[name]))
    with pytest.raises(InvalidFrame, match=r"expected at most 8,388,608|more than 67,108,864 bytes"):
        decode_frame(payload)


def test_values_that_are_large_only_in_all_batches_of_a_stream_are_refused():
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5, np.int32)), pa.array([LONG * 10]))
    assert decode_frame(stream(batch(5, x=column), repeated=3)).num_rows == 15
    with pytest.raises(InvalidFrame, match=r"more than 67,108,864 bytes"):
        decode_frame(stream(batch(5, x=column), repeated=20))


def test_the_same_columns_are_read_where_they_are_small():
    for name, column in LARGE.items():
        if name != "a struct of many nothings":
            assert decode_frame(stream(batch(3, x=column.slice(0, 3)))).num_rows == 3


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_compressed_frame_is_refused_by_what_it_claims_before_it_is_unpacked(codec):
    small = stream(batch(1000, x=pa.array(np.zeros(1000))), codec=codec)
    assert decode_frame(small).num_rows == 1000
    assert 1000 * 16 <= unpacked_bytes(small) <= 1000 * 40
    claim = struct.pack("<q", 8000)
    assert claim in small
    lying = small.replace(claim, struct.pack("<q", 8 << 30))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidFrame, match=r"unpacks to [0-9,]{13}"):
        decode_frame(lying)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    for size in (-2, -(2**63)):
        with pytest.raises(InvalidFrame, match="a buffer of -"):
            decode_frame(small.replace(claim, struct.pack("<q", size)))


def test_a_frame_that_unpacks_to_more_than_the_limit_is_refused():
    rows = MOST_BYTES // 8 + 1000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["k"]))
    many = pa.record_batch({"timestamp": pa.array(np.zeros(rows, np.int64)), "key": text, "type": text})
    payload = stream(many, codec="zstd")
    assert len(payload) < 1 << 20
    with pytest.raises(InvalidFrame, match="expected at most 67,108,864 bytes, divide it"):
        decode_frame(payload)


def test_streams_that_are_not_compressed_claim_nothing():
    assert unpacked_bytes(stream(batch(100, x=pa.array(np.arange(100))))) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seq", str(2**63)), ("seq", "9" * 30), ("seq", "-" + "9" * 30), ("seq", "one"), ("version", "-1"),
        ("version", str(2**40)), ("watermark", str(2**63)), ("watermark", "1e3"), ("weight", "nan"), ("weight", "inf"),
        ("weight", "-1"), ("weight", "0"), ("weight", "much"), ("seq", "9" * 5000),
    ],
)  # fmt: skip
def test_metadata_out_of_range_is_refused(name, value):
    with pytest.raises(InvalidFrame, match=f"metadata entry '{name}' is"):
        decode_frame(stream(batch(), **{name: value}))


def test_metadata_out_of_range_does_not_enter_a_snapshot():
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]")

    def new() -> Domain:
        return Domain(0, [DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"])

    domain = new()
    bad = [{"seq": "9" * 25}, {"watermark": "9" * 25}, {"seq": str(2**62), "watermark": str(2**62)}, {"version": "-3"}]
    for offset, meta in enumerate(bad):
        domain.feed("mono.A", [RawRecord(offset, 1_700_000_000_000, None, stream(batch(), **meta))])
    again = new()
    again.restore(domain.snapshot())
    assert again.counters.dead == 3
    good = encode_frame(Frame.from_columns("A", "other", {"timestamp": [1_700_000_001_000_000], "key": ["k"]}))
    assert again.feed("mono.A", [RawRecord(9, 1_700_000_000_000, None, good)]).dead_letters == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"seq": pa.array([1.5] * 4)}, "column 'seq' is double"),
        ({"seq": pa.array([1, None, 3, 4])}, "'seq' is int64 with 1 nulls"),
        ({"event_id": pa.array([1, 2, 3, 4])}, "column 'event_id' is int64"),
        ({"event_id": pa.array(["a", None, "c", "d"])}, "'event_id' is string with 1 nulls"),
        ({"event_id": pa.array([b"short"] * 4, pa.binary(5))}, "fixed_size_binary"),
    ],
)
def test_columns_that_identify_rows_have_a_value_for_each(columns, said):
    with pytest.raises(InvalidFrame, match=said):
        decode_frame(stream(batch(**columns)))


def test_numbers_of_rows_may_be_of_any_integer_type():
    assert decode_frame(stream(batch(seq=pa.array([5, 6, 7, 8], pa.uint16())))).sequences().tolist() == [5, 6, 7, 8]


def test_two_columns_of_one_name_are_refused():
    given = batch(x=pa.array([1, 2, 3, 4]))
    twice = pa.RecordBatch.from_arrays([*given.columns, given.column("x")], names=[*given.schema.names, "x"])
    with pytest.raises(InvalidFrame, match="two columns are called 'x'"):
        decode_frame(stream(twice))


def test_rows_that_no_column_holds_are_refused():
    nothing = pa.RecordBatch.from_arrays([pa.nulls(1 << 24)], names=["timestamp"])
    with pytest.raises(InvalidFrame, match="16,777,216 values"):
        decode_frame(stream(nothing))


def test_a_snapshot_may_hold_more_than_a_message():
    """What this program wrote itself is no larger than what it held already."""
    rows = MOST_BYTES // 8 + 10
    frame = Frame.from_columns("A", "r", {"timestamp": np.zeros(rows, np.int64), "key": pa.nulls(rows)})
    payload = encode_frame(frame)
    with pytest.raises(InvalidFrame, match="divide it"):
        decode_frame(payload)
    assert decode_frame(payload, bounded=False).num_rows == rows
    with pytest.raises(InvalidFrame):
        decode_frame(payload[: len(payload) // 2], bounded=False)


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_a_frame_without_rows_is_known_by_its_heads(rows):
    columns = {"timestamp": np.zeros(rows, np.int64), "key": ["a"] * rows, "value": np.zeros(rows)}
    payload = encode_frame(Frame.from_columns("s", "r", columns, watermark_us=5))
    assert holds_no_rows(payload) == (rows == 0)


@pytest.mark.parametrize("payload", [b"", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b'{"a": 1}' * 9])
def test_other_bytes_are_not_said_to_hold_no_rows(payload):
    assert not holds_no_rows(payload)
