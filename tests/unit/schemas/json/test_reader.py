import math

import numpy as np
import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import CATALOG, Frame
from astrocyte.schemas.events import DnaEvent, MonoEvent
from astrocyte.schemas.frames import conform
from astrocyte.schemas.json.reader import RawRecord, ce_type, frame_to_records, records_to_frame
from astrocyte.schemas.times import iso_from_us, iso_strings, us_from_iso

START = us_from_iso("2025-09-28T10:30:00Z")


def spikes(count: int) -> Frame:
    return Frame.from_columns(
        "axon_1",
        "run-1",
        {
            "timestamp": START + np.arange(count) * 250_000,
            "key": [f"d{i % 3}" for i in range(count)],
            "type": ["A", "B"] * (count // 2) + ["C"] * (count % 2),
            "value": np.arange(count) * 1.5,
        },
    )


def sources(records) -> list[RawRecord]:
    return [RawRecord(10 + i, 0, record.key, record.value) for i, record in enumerate(records)]


def read(stream: str, *values: bytes | None, key: bytes | None = b"k", timestamp_ms: int = 1000):
    return records_to_frame(
        f"mono.{stream}", 0, stream, [RawRecord(i, timestamp_ms, key, value) for i, value in enumerate(values)]
    )


def test_a_mono_event_has_exactly_the_documented_shape():
    record = orjson.loads(frame_to_records(spikes(1))[0].value)
    assert list(record) == ["event_id", "timestamp", "source_stream", "type", "value", "metadata"]
    assert record["timestamp"] == "2025-09-28T10:30:00Z"
    assert record["source_stream"] == "stream:axon_1"
    assert MonoEvent.model_validate(record).value == 0.0


def test_a_type_that_begins_with_its_stream_is_not_named_twice_in_the_headers():
    assert ce_type("axon_1", "A") == "astrocyte.axon_1.A"
    assert ce_type("dna.snapshot_created", "dna.snapshot_created") == "astrocyte.dna.snapshot_created"


def test_json_and_back_gives_the_same_events_with_the_same_ids():
    frame = spikes(9)
    back, rows, refused = records_to_frame("mono.axon_1", 0, "axon_1", sources(frame_to_records(frame)))
    assert refused == []
    assert rows == list(range(9))
    assert back is not None
    assert back.id_strings() == frame.id_strings()
    for name in ("timestamp", "key", "type", "value"):
        assert back.column(name).to_pylist() == frame.column(name).to_pylist()


@pytest.mark.parametrize("event_type", list(CATALOG), ids=lambda event_type: event_type.stream)
def test_every_catalog_type_survives_json(event_type):
    base = Frame.from_columns(
        event_type.stream, "run-1", {"timestamp": [START], "key": ["k"], "type": [event_type.types[0]]}, version=0
    )
    frame = conform(base, event_type)
    record = frame_to_records(frame)[0]
    (DnaEvent if event_type.envelope == "dna" else MonoEvent).model_validate_json(record.value)
    back, _, refused = records_to_frame("t", 0, event_type.stream, sources([record]))
    assert refused == []
    assert back is not None
    assert back.ids().tolist() == frame.ids().tolist()
    by_simulation = event_type.key == "simulation_id" and "simulation_id" not in event_type.fields
    simulation = {"simulation_id": "k"} if by_simulation else {}
    assert {n: v for n, v in back.rows()[0].items() if n != "event_id"} == frame.rows()[0] | simulation


def test_a_dna_event_uses_the_dna_envelope():
    columns = {"timestamp": [1703001234567000], "key": ["coder_agent"], "type": ["dna.mutation_applied"]}
    columns |= {"snapshot_id": [102], "agent_id": ["coder_agent"], "version": [2], "parent_snapshot_id": [101]}
    columns |= {"mutation_keys": ['["temperature"]'], "traits_delta": ['{"creativity":0.1}'], "reason": ["x"]}
    frame = conform(
        Frame.from_columns("dna.mutation_applied", "r", columns, version=0), CATALOG["dna.mutation_applied"]
    )
    event = orjson.loads(frame_to_records(frame)[0].value)
    assert list(event) == ["id", "type", "source", "target", "timestamp", "payload", "meta"]
    assert event["id"].startswith("evt_dna_1703001234567_")
    assert event["timestamp"] == 1703001234.567
    assert event["payload"]["mutation_keys"] == ["temperature"]
    assert event["payload"]["traits_delta"] == {"creativity": 0.1}
    assert event["meta"] == {"correlation_id": None, "version": "1.0"}


def test_headers_are_cloudevents_in_kafka_binary_mode():
    record = frame_to_records(spikes(1))[0]
    event = from_binary_event(KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value))
    assert event.get_id() == spikes(1).id_strings()[0]
    assert event.get_type() == "astrocyte.axon_1.C"
    assert event.get_source() == "/astrocyte/run-1/axon_1"
    assert event.get_specversion() == "1.0"
    assert event.get_time().isoformat() == "2025-09-28T10:30:00+00:00"
    assert event.get_data() == orjson.loads(record.value)


def test_the_documented_example_is_read_and_unknown_fields_are_left_out():
    seed = b'{"event_id":"e-1","timestamp":"2025-09-28T10:30:00Z","source_stream":"stream:axon_1","type":"A",'
    frame, _, refused = read("axon_1", seed + b'"value":10,"metadata":{"colour":"red"}}')
    assert refused == []
    assert frame.rows() == [{"timestamp": START, "key": "k", "type": "A", "value": 10.0, "event_id": "e-1"}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "expected a JSON object, got a JSON array of 1; give each event a message or line of its own"),
        (b'{"timestamp":"yesterday"}', "'yesterday'; expected ISO 8601"),
        (b'{"timestamp":true}', "timestamp True of type bool; expected ISO 8601 text"),
        (b'{"timestamp":1e300}', "timestamp 1e+300 is out of range"),
        (b'{"value":"ten"}', "field 'value' is 'ten'; expected float64"),
        (b'{"value":true}', "field 'value' is True"),
        (b'{"value":{"a":1}}', "field 'value' is"),
    ],
)
def test_a_bad_record_is_refused_alone_with_its_reason(value, reason):
    good = b'{"timestamp":"2025-09-28T10:30:00Z","type":"A","value":1}'
    frame, rows, refused = read("axon_1", good, value, good)
    assert rows == [0, 2]
    assert frame.num_rows == 2
    assert [item.index for item in refused] == [1]
    assert reason in refused[0].reason


def test_a_record_without_time_takes_kafkas_and_without_id_one_of_its_place():
    first, _, _ = read("axon_1", b'{"value":1}', b'{"value":1}', timestamp_ms=1234)
    again, _, _ = read("axon_1", b'{"value":1}', b'{"value":1}', timestamp_ms=1234)
    assert first.timestamps().tolist() == [1_234_000] * 2
    assert first.id_strings() == again.id_strings()
    assert len(set(first.id_strings())) == 2


@pytest.mark.parametrize(
    "text",
    [b"1759055400", b"1759055400000", b"1759055400000000", b'"2025-09-28T12:30:00+02:00"', b'"2025-09-28T10:30:00"'],
)
def test_times_are_read_in_seconds_milliseconds_microseconds_and_with_zones(text):
    frame, _, refused = read("axon_1", b'{"value":1,"timestamp":' + text + b"}")
    assert refused == []
    assert frame.timestamps().tolist() == [START]


def test_an_unlisted_stream_takes_its_fields_as_they_are():
    frame, _, refused = read(
        "weather", b'{"celsius":3,"wind":{"dir":"N"},"id":"station-1"}', b'{"celsius":3.5,"wet":true}', key=None
    )
    assert refused == []
    assert [row["celsius"] for row in frame.rows()] == [3.0, 3.5]
    assert [row["wind"] for row in frame.rows()] == ['{"dir":"N"}', None]
    assert [row["wet"] for row in frame.rows()] == [None, True]
    assert frame.rows()[0]["id"] == "station-1"


json_values = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
records = st.dictionaries(
    st.sampled_from(["timestamp", "type", "value", "metadata", "payload", "meta", "event_id", "source_stream", "x"]),
    json_values | st.dictionaries(st.text(max_size=3), json_values, max_size=3),
)


@given(
    st.lists(st.binary(max_size=10) | records, max_size=8), st.sampled_from(["axon_1", "weather", "dna.karma_updated"])
)
def test_every_record_is_a_row_or_refused(values, stream):
    encoded = []
    for value in values:
        try:
            encoded.append(value if isinstance(value, bytes) else orjson.dumps(value))
        except (TypeError, orjson.JSONEncodeError):
            encoded.append(b"{}")
    frame, rows, refused = read(stream, *encoded)
    assert sorted(rows + [item.index for item in refused]) == list(range(len(encoded)))
    assert (frame.num_rows if frame else 0) == len(rows)


@given(st.lists(st.integers(-62_000_000_000_000_000, 250_000_000_000_000_000)))
def test_times_as_strings_round_trip_to_the_microsecond(times):
    strings = iso_strings(np.array(times, np.int64))
    assert [us_from_iso(text) for text in strings] == times
    assert strings == [iso_from_us(time) for time in times]


def test_a_number_beyond_all_floats_is_infinite_beside_whichever_records_it_stands():
    values = [b'{"timestamp":5,"value":1e400}', b'{"timestamp":6,"value":-1e999}', b'{"timestamp":7,"value":1.5}']
    for chosen in (values, values[:1], values[1:]):
        records = [RawRecord(number, 0, b"k", value) for number, value in enumerate(chosen)]
        frame, _, refused = records_to_frame("mono.s", 0, "s", records)
        assert refused == []
        expected = [math.inf, -math.inf, 1.5]
        assert [row["value"] for row in frame.rows()] == [expected[values.index(value)] for value in chosen]
