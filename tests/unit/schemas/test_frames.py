from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import CATALOG, EventType, Frame, decode_frame, encode_frame
from astrocyte.schemas.errors import InvalidFrame, SchemaMismatch
from astrocyte.schemas.frames import conform


def spikes(count: int, **meta: object) -> Frame:
    return Frame.from_columns(
        "axon_1",
        "run-1",
        {
            "timestamp": np.arange(count) * 1000,
            "key": [f"d{i % 7}" for i in range(count)],
            "type": ["A"] * count,
            "value": np.linspace(0, 1, count),
        },
        **meta,
    )


@given(
    count=st.integers(0, 50),
    first_seq=st.integers(0, 2**62),
    version=st.integers(1, 9),
    origin=st.text(max_size=5),
    watermark_us=st.none() | st.integers(-(2**62), 2**62),
    end=st.booleans(),
    weight=st.sampled_from([1.0, 2.5, 1e6]),
    peers=st.lists(st.sampled_from(["axon_1", "axon_2", "truth"]), unique=True).map(tuple),
)
def test_a_frame_survives_encoding_with_all_its_attributes(count, **meta):
    frame = spikes(count, **meta)
    back = decode_frame(encode_frame(frame))
    assert back.rows() == frame.rows()
    for name in ("stream", "run", "version", "origin", "watermark_us", "end", "weight", "peers"):
        assert getattr(back, name) == getattr(frame, name)
    assert back.sequences().tolist() == frame.sequences().tolist()


def test_rows_keep_their_ids_when_taken_or_sliced():
    frame = spikes(100, first_seq=7)
    ids = frame.id_strings()
    assert len(set(ids)) == 100
    assert frame.take(np.array([5, 3])).id_strings() == [ids[5], ids[3]]
    assert frame.slice(10, 20).id_strings() == ids[10:20]


def test_simulation_id_is_the_run_unless_a_column_overrides_it():
    assert spikes(2).column("simulation_id").to_pylist() == ["run-1", "run-1"]
    with pytest.raises(KeyError):
        spikes(2).column("colour")


def test_a_frame_without_time_or_key_is_refused_with_what_is_missing():
    with pytest.raises(InvalidFrame, match=r"lacks timestamp, key"):
        Frame.from_columns("axon_1", "r", {"value": [1.0]})
    with pytest.raises(InvalidFrame, match="differ in length"):
        Frame.from_columns("axon_1", "r", {"timestamp": [1, 2], "key": ["a"]})


def _arrow_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def test_bytes_that_are_not_a_frame_are_refused():
    good = encode_frame(spikes(10))
    for payload in (b"", b"{}", good[: len(good) // 2], good[:20], b"\xff\xff\xff\xff" + bytes(40)):
        with pytest.raises(InvalidFrame):
            decode_frame(payload)
    with pytest.raises(InvalidFrame, match="metadata entry 'stream'"):
        decode_frame(_arrow_bytes(pa.record_batch({"timestamp": [1]})))


def test_a_frame_with_a_null_or_retyped_time_is_refused():
    meta = {"stream": "s", "run": "r"}
    text = pa.array(["k"]).dictionary_encode()
    null = pa.record_batch({"timestamp": pa.array([None], pa.int64()), "key": text, "type": text})
    with pytest.raises(InvalidFrame, match="holds nulls"):
        decode_frame(_arrow_bytes(null.replace_schema_metadata(meta)))
    seconds = pa.record_batch({"timestamp": pa.array([1.5]), "key": text, "type": text})
    with pytest.raises(InvalidFrame, match="'timestamp' is double"):
        decode_frame(_arrow_bytes(seconds.replace_schema_metadata(meta)))


V1 = EventType("weather", "place", {"celsius": "float32"}, version=1)
V2 = EventType("weather", "place", {"celsius": "float64", "humidity": "float64", "note": "string"}, version=2)


def weather(**columns: object) -> Frame:
    version = columns.pop("version", 1)
    return Frame.from_columns("weather", "r", {"timestamp": [1], "key": ["x"], **columns}, version=version)


def test_an_old_recording_reads_added_fields_as_null_and_widens_numbers():
    old = weather(celsius=np.array([1.5], np.float32))
    frame = conform(decode_frame(encode_frame(old)), V2)
    assert frame.version == 2
    assert frame.rows()[0]["celsius"] == 1.5
    assert frame.rows()[0]["humidity"] is None
    assert frame.rows()[0]["note"] is None
    assert frame.column("celsius").type == pa.float64()


def test_fields_of_a_newer_producer_are_left_out():
    newer = weather(celsius=np.array([1.5], np.float32), humidity=[0.5], version=2)
    assert conform(newer, V1).fields == ("celsius",)


def test_a_removed_or_retyped_field_names_both_versions():
    gone = EventType("weather", "place", {"humidity": "float64"}, version=3)
    with pytest.raises(SchemaMismatch, match=r"version 1, catalog of version 3.*'celsius' was removed"):
        conform(weather(celsius=[1.5]), gone)
    with pytest.raises(SchemaMismatch, match=r"version 2, catalog of version 1.*'celsius' was removed"):
        conform(weather(version=2), V1)
    with pytest.raises(SchemaMismatch, match=r"'celsius' is string; expected "):
        conform(weather(celsius=["warm"]), V1)


def test_every_catalog_type_round_trips_as_an_empty_and_a_null_row():
    for event_type in CATALOG:
        base = Frame.from_columns(event_type.stream, "r", {"timestamp": [1], "key": ["k"]}, version=0)
        frame = conform(base, event_type)
        assert frame.batch.schema.names == event_type.arrow_schema().names
        assert decode_frame(encode_frame(frame)).rows() == frame.rows()


@pytest.mark.parametrize("name", ["key", "v"])
def test_a_column_of_what_no_event_has_is_refused(name):
    columns = {"timestamp": [1], "key": ["k"], name: [object()]}
    with pytest.raises(InvalidFrame, match=f"columns of stream 'S' cannot be read: column '{name}': expected a number"):
        Frame.from_columns("S", "run", columns)


def test_a_list_of_keys_is_read_as_keys_of_mappings_are():
    keys = ["a", 1, 5.0, 2**70, Decimal("0.12345678901234567"), b"\x00", True, None]
    frame = Frame.from_columns("S", "run", {"timestamp": range(8), "key": keys})
    assert frame.values("key") == ["a", "1", "5", str(2**70), "0.12345678901234567", "0x00", "true", None]
