"""Small frames that are read together are those that are read one by one, and damaged ones are left alone."""

import struct

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.ingest.small_frames import decode_small_frames
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame

HOUR_US = 3_600_000_000
ATTRIBUTES = ("stream", "run", "first_seq", "version", "origin", "watermark_us", "end", "peers", "weight")


def frame(stream: str, rows: int, seq: int, random: np.random.Generator, **meta: object) -> Frame:
    names = [f"{stream}-{number}" for number in range(int(random.integers(1, 9)))]
    columns = {
        "timestamp": seq * 1_000 + np.arange(rows),
        "key": pa.array([names[number] for number in random.integers(0, len(names), rows)], pa.utf8()),
        "type": pa.array(random.choice(["A", "B"], rows), pa.utf8()),
        "value": random.random(rows),
        "label": pa.array([None if number % 3 == 0 else f"x{number}" for number in range(rows)], pa.utf8()),
        "parts": pa.array([[float(number)] * (number % 4) for number in range(rows)], pa.list_(pa.float64())),
    }
    return Frame.from_columns(stream, str(meta.pop("run", "run-1")), columns, first_seq=seq, **meta)


def some_payloads(seed: int) -> list[bytes]:
    """Frames of several streams, runs and forms, as they lie mixed in a partition."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(60):
        stream = ("axon_1", "axon_2", "sensor")[number % 3]
        meta: dict[str, object] = {"run": ("run-1", "run-22", "")[int(random.integers(3))], "origin": "p"}
        if random.random() < 0.7:
            meta["watermark_us"] = int(random.integers(-HOUR_US, HOUR_US))
        if random.random() < 0.1:
            meta |= {"end": True, "weight": 2.5, "peers": ("axon_1", "axon_2")}
        one = frame(
            stream, int(random.integers(0, 12)), int(random.integers(0, 10 ** random.integers(1, 8))), random, **meta
        )
        if random.random() < 0.2:
            one = one.take(np.arange(one.num_rows)[::-1])
        if random.random() < 0.2:
            one = one.with_ids(random.integers(0, 2**63, (one.num_rows, 2)).astype(np.uint64))
        made.append(encode_frame(one))
    return made


def same(one: Frame, other: Frame) -> bool:
    return one.batch.equals(other.batch) and all(getattr(one, name) == getattr(other, name) for name in ATTRIBUTES)


def alone(payload: bytes) -> Frame | None:
    try:
        return decode_frame(payload)
    except InvalidFrame:
        return None


@pytest.mark.parametrize("seed", range(5))
def test_frames_read_together_are_those_read_alone(seed: int) -> None:
    payloads = some_payloads(seed)
    found = decode_small_frames(payloads)
    assert all(
        each is not None and same(each, decode_frame(payload)) for each, payload in zip(found, payloads, strict=True)
    )


def test_dictionaries_are_those_of_each_message() -> None:
    payloads = some_payloads(1)
    found = decode_small_frames(payloads)
    for each, payload in zip(found, payloads, strict=True):
        assert each is not None
        assert each.rows() == decode_frame(payload).rows()
        assert each.batch.column("key").dictionary.equals(decode_frame(payload).batch.column("key").dictionary)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_message_among_others_is_left_alone_or_is_what_it_is_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    payloads = some_payloads(seed % 4)
    for _ in range(4):
        at = int(random.integers(len(payloads)))
        damaged = bytearray(payloads[at])
        for _ in range(int(random.integers(1, 4))):
            damaged[int(random.integers(len(damaged)))] = int(random.integers(256))
        cut = int(random.integers(len(damaged))) if random.random() < 0.2 else len(damaged)
        payloads[at] = bytes(damaged[:cut])
    for each, payload in zip(decode_small_frames(payloads), payloads, strict=True):
        expected = alone(payload)
        assert each is None or (expected is not None and same(each, expected))


def messages(payload: bytes) -> list[bytes]:
    """The messages of a stream, without its end."""
    parts, at = [], 0
    while at + 8 < len(payload):
        _, length = struct.unpack_from("<iI", payload, at)
        head = payload[at : at + 8 + length]
        batch = pa.ipc.read_message(pa.BufferReader(payload[at:]))
        end = at + len(head) + (batch.body.size if batch.body is not None else 0)
        parts.append(payload[at:end])
        at = end
    return parts


END = b"\xff\xff\xff\xff\0\0\0\0"


def plain(seq: int) -> bytes:
    return encode_frame(frame("axon_1", 5, seq, np.random.default_rng(seq)))


def test_a_message_without_its_dictionary_never_gets_that_of_another() -> None:
    first, second = plain(10), plain(11)
    schema, key, kinds, batch = messages(second)
    for odd in ([schema, kinds, batch], [schema, key, key, batch], [schema, key, kinds, batch, batch], [schema, batch]):
        payload = b"".join([*odd, END])
        found = decode_small_frames([first, payload])[1]
        expected = alone(payload)
        assert found is None or (expected is not None and same(found, expected))
    assert decode_small_frames([first, b"".join([schema, key, batch, END])])[1] is None


def test_compressed_and_foreign_schemas_are_left_alone() -> None:
    made = decode_frame(plain(10))
    meta = {"stream": "axon_1", "run": "run-1", "seq": "10"}
    sink = pa.BufferOutputStream()
    batch = made.batch.replace_schema_metadata(meta)
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    compressed = bytes(sink.getvalue())
    decimals = encode_frame(Frame.from_columns("axon_1", "r", {"timestamp": [1], "key": ["k"], "value": [1.5]}))
    foreign = pa.ipc.open_stream(decimals).read_all().set_column(3, "value", pa.array([1.5]).cast(pa.float16()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, foreign.schema) as writer:
        writer.write_table(foreign)
    assert decode_small_frames([compressed, bytes(sink.getvalue()), b"", None, b"{}", plain(12)])[:5] == [None] * 5


def test_nulls_among_times_are_refused_alone() -> None:
    made = decode_frame(plain(10))
    times = pa.array([1, None, 3, 4, 5], pa.int64())
    batch = made.batch.set_column(0, "timestamp", times).replace_schema_metadata({"stream": "axon_1", "run": "r"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert decode_small_frames([bytes(sink.getvalue())] * 2) == [None, None]


@pytest.mark.parametrize("entry", ["seq", "watermark"])
@pytest.mark.parametrize("text", ["1x", "99999999999999999999", "--1", "1_0"])
def test_numbers_that_a_frame_refuses_are_refused(entry: str, text: str) -> None:
    made = decode_frame(plain(10))
    meta = {"stream": "axon_1", "run": "r", "seq": "1", "watermark": "2"} | {entry: text}
    sink = pa.BufferOutputStream()
    batch = made.batch.replace_schema_metadata(meta)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    payload = bytes(sink.getvalue())
    (found,) = decode_small_frames([payload])
    expected = alone(payload)
    assert found is None if expected is None else found is None or same(found, expected)
