"""The Kafka messages of a frame, with no broker."""

from __future__ import annotations

from itertools import chain

import numpy as np
import orjson
import pyarrow as pa

from astrocyte.pipeline.simulation.publish import messages_of
from astrocyte.schemas.frames import CONTENT_TYPE, Frame, decode_frame
from astrocyte.schemas.partitioning import partition_of


def frame_of(rows: int, *, keys: int = 7, **meta: object) -> Frame:
    columns = {
        "timestamp": np.arange(rows, dtype=np.int64) * 1000,
        "key": [f"n{row % keys}" for row in range(rows)],
        "type": ["A"] * rows,
        "value": np.arange(rows, dtype=np.float64),
    }
    return Frame.from_columns("axon_1", "run", columns, **meta)


def test_rows_go_to_the_partition_of_their_key_in_order():
    rows = {}
    for message in messages_of(frame_of(100), 4):
        assert message.topic == "mono.axon_1"
        assert dict(message.headers) == {"content-type": CONTENT_TYPE.encode()}
        part = decode_frame(message.value)
        assert {partition_of(key, 4) for key in part.column("key").to_pylist()} == {message.partition}
        rows[message.partition] = part.sequences().tolist()
    assert sorted(chain(*rows.values())) == list(range(100))
    assert all(numbers == sorted(numbers) for numbers in rows.values())


def test_frame_with_a_watermark_reaches_every_partition():
    messages = list(messages_of(frame_of(3, keys=1, watermark_us=99), 4))
    assert [message.partition for message in messages] == [0, 1, 2, 3]
    assert [decode_frame(message.value).watermark_us for message in messages] == [99] * 4


def test_frame_too_large_for_a_message_is_cut_and_only_its_last_piece_ends_the_run():
    frame = frame_of(200_000, keys=1, watermark_us=10**9, end=True)
    messages = [message for message in messages_of(frame, 2) if decode_frame(message.value).num_rows]
    pieces = [decode_frame(message.value) for message in messages]
    assert len(pieces) > 1
    assert max(len(message.value) for message in messages) < 1 << 20
    assert np.concatenate([piece.sequences() for piece in pieces]).tolist() == list(range(200_000))
    assert [piece.end for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [piece.watermark_us for piece in pieces] == [None] * (len(pieces) - 1) + [10**9]


def test_json_form_is_one_record_a_message_with_event_time_and_key():
    messages = list(messages_of(frame_of(50), 4, "json"))
    assert len(messages) == 50
    for message in messages:
        assert message.partition == partition_of(message.key, 4)
        assert orjson.loads(message.value)["type"] == "A"
        assert dict(message.headers)["ce_specversion"] == b"1.0"
    assert sorted(message.timestamp_ms for message in messages) == list(range(50))


def test_frame_without_rows_is_no_json_message():
    assert list(messages_of(frame_of(3).slice(0, 0), 4, "json")) == []


def test_a_dictionary_larger_than_a_message_is_divided_with_the_rows():
    names = pa.array([f"domain-{number:08d}" for number in range(200_000)])
    rows = np.arange(50_000, dtype=np.int32)
    key = pa.DictionaryArray.from_arrays(pa.array(rows), names)
    frame = Frame.from_columns("axon_1", "run", {"timestamp": rows.astype(np.int64), "key": key}, watermark_us=9)
    messages = list(messages_of(frame, 1))
    assert len(messages) < 20
    parts = [decode_frame(message.value) for message in messages]
    assert [part.watermark_us for part in parts] == [None] * (len(parts) - 1) + [9]
    assert [text for part in parts for text in part.id_strings()] == frame.id_strings()
    assert [name for part in parts for name in part.column("key").to_pylist()] == frame.column("key").to_pylist()
