"""Moving events in time, to another stream, and over other partitions."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.replays.shift import (
    Shift,
    first_event_us,
    rename_stream,
    repartition,
    shift_record,
    whole_us,
)
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.partitioning import partition_of
from astrocyte.schemas.times import us_from_iso
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages

HOUR = 3_600_000_000
BY_AN_HOUR = Shift(HOUR, HOUR // 1000)


def message(frame: Frame, partition: int = 0) -> ConsumedRecord:
    headers = (("content-type", b"application/vnd.apache.arrow.stream"),)
    return ConsumedRecord(f"mono.{frame.stream}", partition, 3, T0_US // 1000, None, encode_frame(frame), headers)


def test_a_frame_moves_with_its_watermark_and_keeps_ids_and_original_time():
    frame = axon_frame("axon_1", ["a", "b"], [0, 7], watermark_us=T0_US + 9)
    moved = shift_record(message(frame), BY_AN_HOUR)
    after = decode_frame(moved.value)
    assert (after.timestamps() - frame.timestamps()).tolist() == [HOUR, HOUR]
    assert after.watermark_us == T0_US + 9 + HOUR
    assert after.id_strings() == frame.id_strings()
    assert moved.timestamp_ms == T0_US // 1000 + 3_600_000
    assert dict(moved.headers)["ce_originaltime"] == b"2023-11-14T22:13:20Z"
    assert dict(moved.headers)["ce_timeshift"] == str(HOUR).encode()


def test_a_json_record_moves_with_its_headers():
    (record,) = json_messages(axon_frame("axon_1", ["a"], [5]))
    moved = shift_record(record, BY_AN_HOUR)
    body = orjson.loads(moved.value)
    assert us_from_iso(body["timestamp"]) == T0_US + 5 + HOUR
    assert body["event_id"] == orjson.loads(record.value)["event_id"]
    headers = dict(moved.headers)
    assert headers["ce_time"] == body["timestamp"].encode()
    assert headers["ce_originaltime"] == dict(record.headers)["ce_time"]


def test_a_second_shift_keeps_the_first_original_and_adds_up():
    (record,) = json_messages(axon_frame("axon_1", ["a"], [5]))
    twice = shift_record(shift_record(record, BY_AN_HOUR), BY_AN_HOUR)
    headers = dict(twice.headers)
    assert headers["ce_originaltime"] == dict(record.headers)["ce_time"]
    assert headers["ce_timeshift"] == str(2 * HOUR).encode()
    assert [name for name, _ in twice.headers].count("ce_timeshift") == 1


@pytest.mark.parametrize(
    ("time", "moved"),
    [
        (1_700_000_000, 1_700_003_600),
        (1_700_000_000.5, 1_700_003_600.5),
        (1_700_000_000_123, 1_700_003_600_123),
        (1_700_000_000_123_456, 1_700_003_600_123_456),
    ],
)
def test_a_numeric_time_keeps_its_unit(time, moved):
    record = ConsumedRecord("mono.x", 0, 0, 0, None, orjson.dumps({"timestamp": time}))
    assert orjson.loads(shift_record(record, BY_AN_HOUR).value)["timestamp"] == moved
    assert first_event_us(record) == round(time * (1e6 if time < 1e11 else 1e3 if time < 1e14 else 1))


def test_times_inside_the_event_move_too():
    truth = Frame.from_columns("truth", "r", {"timestamp": [T0_US], "key": ["k"], "until": np.array([T0_US + 50])})
    assert decode_frame(shift_record(message(truth), BY_AN_HOUR).value).column("until").to_pylist() == [
        T0_US + 50 + HOUR
    ]
    event = {"type": "dna.karma_updated", "timestamp": 1.7e9, "payload": {"updated_at": 1.7e9}, "meta": {}}
    record = ConsumedRecord("mono.dna.karma_updated", 0, 0, 0, None, orjson.dumps(event))
    assert orjson.loads(shift_record(record, BY_AN_HOUR).value)["payload"]["updated_at"] == 1.7e9 + 3600
    multi = {
        "event_id": "x",
        "timestamp": "2025-09-28T10:00:00Z",
        "lineage": {"a": {"timestamp": "2025-09-28T09:00:00Z"}},
    }
    shifted = orjson.loads(
        shift_record(ConsumedRecord("multi.events", 0, 0, 0, None, orjson.dumps(multi)), BY_AN_HOUR).value
    )
    assert shifted["lineage"]["a"]["timestamp"] == "2025-09-28T10:00:00Z"


@pytest.mark.parametrize("value", [None, b"not json", b"[1]", b"\xff\xff\xff\xffbroken", b'{"timestamp":"?"}'])
def test_a_message_without_a_time_keeps_its_bytes(value):
    record = ConsumedRecord("t", 0, 0, 5, b"k", value)
    assert shift_record(record, Shift(1, 1)).value == value
    assert first_event_us(record) is None


def test_a_later_lap_has_its_own_reproducible_ids():
    frame = axon_frame("axon_1", ["a", "b"], [0, 7])
    second = Shift(HOUR, 0, lap=2)
    ids = decode_frame(shift_record(message(frame), second).value).id_strings()
    assert not set(ids) & set(frame.id_strings())
    assert ids == decode_frame(shift_record(message(frame), second).value).id_strings()
    (record,) = json_messages(axon_frame("axon_1", ["a"], [5]))
    moved = shift_record(record, second)
    assert orjson.loads(moved.value)["event_id"] != orjson.loads(record.value)["event_id"]
    assert dict(moved.headers)["ce_id"].decode() == orjson.loads(moved.value)["event_id"]


def test_a_frame_is_divided_over_the_partitions_of_its_keys():
    keys = [f"k{i}" for i in range(40)]
    frame = axon_frame("axon_1", keys, range(40), watermark_us=T0_US + 100, origin="sim", peers=("axon_1", "axon_2"))
    parts = repartition(message(frame, partition=1), 2, 5)
    assert [part.partition for part in parts] == [0, 1, 2, 3, 4]
    frames = [decode_frame(part.value) for part in parts]
    for part, inside in zip(parts, frames, strict=True):
        assert {partition_of(key, 5) for key in inside.column("key").to_pylist()} <= {part.partition}
        assert inside.watermark_us == T0_US + 100
        assert inside.origin == "sim/1"
        assert set(inside.peers) == {"axon_1@sim/0", "axon_1@sim/1", "axon_2@sim/0", "axon_2@sim/1"}
    assert sorted(text for inside in frames for text in inside.id_strings()) == sorted(frame.id_strings())


def test_other_messages_go_to_kafkas_partition_of_their_key():
    record = ConsumedRecord("t", 1, 0, 0, b"k7", b"{}")
    (part,) = repartition(record, 2, 5)
    assert part.partition == partition_of("k7", 5)
    assert repartition(record._replace(key=None, partition=7), 8, 5)[0].partition == 2
    assert repartition(record._replace(value=b"\xff\xff\xff\xff??"), 2, 5)[0].partition == partition_of("k7", 5)


def test_a_renamed_stream_keeps_the_ids_of_its_events():
    frame = axon_frame("axon_1", ["a", "b"], [0, 7], seq=5)
    renamed = rename_stream(message(frame), "axon_9")
    after = decode_frame(renamed.value)
    assert after.stream == "axon_9"
    assert after.id_strings() == frame.id_strings()
    (record,) = json_messages(frame.slice(0, 1))
    assert orjson.loads(rename_stream(record, "axon_9").value)["source_stream"] == "stream:axon_9"
    assert rename_stream(record._replace(value=b"x"), "y").value == b"x"


def test_renamed_frames_are_read_like_any_other():
    offsets: dict[tuple[str, int], int] = {}
    records = [rename_stream(item, "axon_2") for item in frame_messages(axon_frame("axon_1", ["a"], [0]), 1, offsets)]
    (chunk,) = chunks_of([item._replace(topic="mono.axon_2") for item in records])
    assert chunk.frame.stream == "axon_2"


DECLARED = """
streams:
  - {name: orders, topic: orders, time: {field: created_at, unit: s}, id: order_id}
  - {name: changes, topic: changes, decoder: debezium, id: order_id}
  - {name: lines, topic: lines, decoder: {name: csv, columns: [time, order_id]}, id: order_id}
rules: [{name: r, within: 1m, seq: [{as: a, stream: orders}, {as: b, stream: changes}, {as: c, stream: lines}]}]
"""
CHANGE = {"op": "c", "after": {"order_id": 7}, "source": {"ts_ms": T0_US // 1000}, "ts_ms": T0_US // 1000 + 3}


def sent(topic: str, body: object, **headers: str) -> ConsumedRecord:
    value = body if isinstance(body, bytes) else orjson.dumps(body)
    return ConsumedRecord(topic, 0, 0, T0_US // 1000, b"k", value, tuple((k, v.encode()) for k, v in headers.items()))


def read(*records: ConsumedRecord) -> list[dict[str, object]]:
    """Times, ids and orders of the events that a worker reads."""
    decoders = decoders_of(contracts_of(load_rules(DECLARED)))
    found = []
    for number, record in enumerate(records):
        raw = RawRecord(number, record.timestamp_ms, record.key, record.value, list(record.headers))
        frames, letters = decode_chunk(record.topic, 0, [raw], decoders=decoders)
        assert letters == []
        for each in frames:
            rows = zip(
                each.frame.timestamps().tolist(), each.frame.id_strings(), each.frame.values("order_id"), strict=True
            )
            found += [{"time": time, "id": name, "order": order} for time, name, order in rows]
    return found


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("orders", {"created_at": T0_US // 1_000_000, "order_id": "o-1"}),
        ("orders", {"created_at": str(T0_US // 1_000_000), "order_id": 12, "id": "m-1", "event_id": "4625"}),
        ("changes", CHANGE),
        ("changes", {"schema": {}, "payload": CHANGE}),
    ],
)
def test_a_later_lap_of_a_declared_stream_has_new_ids_at_a_later_time_and_the_same_fields(topic, body):
    contract = contracts_of(load_rules(DECLARED)).of_topic(topic)
    record = sent(topic, body)
    laps = [shift_record(record, Shift(HOUR * lap, 0, lap), contract) for lap in (1, 2, 3)]
    (first, second, third) = read(*laps)
    assert len({each["id"] for each in (first, second, third)}) == 3
    assert first["order"] == second["order"] == third["order"]
    start = read(record)[0]
    assert [each["time"] - start["time"] for each in (first, second, third)] == [HOUR, 2 * HOUR, 3 * HOUR]
    assert start["id"] == first["id"]
    bodies = [orjson.loads(each.value) for each in laps]
    assert [each.get("id") for each in bodies] == [body.get("id")] * 3
    assert [each.get("event_id") for each in bodies] == [body.get("event_id")] * 3
    assert first_event_us(record, contract) == start["time"]


def test_a_lap_of_a_lap_has_ids_of_its_own_and_other_forms_keep_their_bytes():
    record = sent("lines", b"2023-11-14T22:13:20Z,o-1", astrocyte_lap="2")
    again = shift_record(record, Shift(HOUR, 0, 2))
    assert again.value == record.value
    assert dict(again.headers)["astrocyte_lap"] == b"2.2"
    ids = [each["id"] for each in read(sent("lines", record.value), record, again)]
    assert len(set(ids)) == 3
    assert read(again) == read(again)
    assert shift_record(record, Shift(HOUR, 0)).headers == record.headers


def test_a_later_lap_of_cloudevents_has_new_ids():
    body = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "time": "2023-11-14T22:13:20Z",
        "data": {"a": 1},
    }
    second = orjson.loads(shift_record(sent("cloud", body), Shift(HOUR, 0, 2)).value)
    assert (second["id"] != "1", second["time"], second["data"]) == (True, "2023-11-14T23:13:20Z", {"a": 1})
    del body["time"]
    inside = orjson.loads(
        shift_record(sent("cloud", body | {"data": {"ts": "2023-11-14T22:13:20Z"}}), BY_AN_HOUR).value
    )
    assert inside["data"] == {"ts": "2023-11-14T23:13:20Z"}
    binary = sent("cloud", {"a": 1}, ce_specversion="1.0", ce_id="1", ce_source="s", ce_type="t")
    assert dict(shift_record(binary, Shift(HOUR, 0, 2)).headers)["ce_id"] == second["id"].encode()


def test_decimals_and_bytes_of_a_moved_frame_stay_as_they_came():
    columns = {
        "timestamp": pa.array([T0_US]), "key": pa.array(["k"]).dictionary_encode(),
        "type": pa.array(["t"]).dictionary_encode(), "amount": pa.array([Decimal(2**70)], pa.decimal128(38, 2)),
        "tag": pa.array([b"\x00a"]),
    }  # fmt: skip
    batch = pa.record_batch(columns).replace_schema_metadata({"stream": "axon_1", "run": "r"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    record = ConsumedRecord("mono.axon_1", 0, 0, 0, None, bytes(sink.getvalue()))
    moved = rename_stream(shift_record(record, BY_AN_HOUR), "axon_2")
    for part in repartition(moved, 1, 2):
        found = pa.ipc.open_stream(part.value).read_all()
        assert found.column("amount").to_pylist() == [Decimal(2**70)]
        assert found.column("tag").to_pylist() == [b"\x00a"]


@pytest.mark.parametrize(
    ("topic", "body", "step_us"),
    [
        ("orders", {"created_at": 1_700_000_000}, 1_000_000),
        ("orders", {"created_at": "1700000000"}, 1_000_000),
        ("orders", {"created_at": 1_700_000_000.5}, 1),
        ("orders", {"created_at": "2023-11-14T22:13:20Z"}, 1),
        ("orders", {"created_at": 1_700_000_000.5, "ts": 1_700_000_000_000}, 1000),
        ("changes", CHANGE, 1000),
        ("none", {"ts": 1_700_000_000_000_000_000}, 1),
        ("none", {"ts": True}, 1),
        ("none", b"x", 1),
    ],
)
def test_steps_by_which_whole_numbers_of_a_message_stay_whole(topic, body, step_us):
    record = sent(topic, body)
    contract = contracts_of(load_rules(DECLARED)).of_topic(topic)
    assert whole_us(record, contract) == step_us
    moved = shift_record(record, Shift(3 * step_us), contract).value
    assert moved.count(b".") == record.value.count(b".") or step_us == 1


def test_whole_seconds_of_a_dna_event_stay_whole():
    event = {
        "type": "dna.karma_updated",
        "timestamp": 1_700_000_000,
        "payload": {"updated_at": 1_700_000_000},
        "meta": {},
    }
    moved = orjson.loads(shift_record(sent("mono.dna.karma_updated", event), BY_AN_HOUR).value)
    assert (moved["payload"]["updated_at"], type(moved["payload"]["updated_at"])) == (1_700_003_600, int)
