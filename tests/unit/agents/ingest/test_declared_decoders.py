"""Decoders of declared streams: Debezium, CloudEvents, CSV and Avro."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import fastavro
import pytest

from astrocyte import Engine, load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.ingest.avro import SchemaRegistryUnavailable
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.schemas.json.reader import RawRecord
from tests.support.declared import START_US, decoders, message, read

# -- Debezium, CloudEvents, CSV ----------------------------------------------------------------------------------------


def test_tombstones_of_a_declared_debezium_stream_are_skipped_and_counted():
    found = decoders("{name: orders, decoder: debezium}")
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: orders}]}]")
    topics = {"orders": "mono.orders"}
    domain = Domain(
        0, [DomainGroup("key", Engine(rules, validated=True), topics)], topics=topics.values(), decoders=found
    )
    change = {"op": "d", "before": {"id": 1}, "source": {"ts_ms": START_US // 1000}}
    output = domain.feed("mono.orders", [message(change), RawRecord(1, 0, b"k", None)])
    output.extend(domain.flush())
    assert (len(output.multi_events), len(output.dead_letters)) == (1, 0)
    counters = domain.counters
    assert (counters.received, counters.processed, counters.skipped) == (2, 1, 1)
    assert domain.positions == {"mono.orders": 2}


def test_columns_of_a_changed_row_with_reserved_names_are_fields():
    row = {"id": 1, "timestamp": "t", "key": "k2", "type": "gold", "seq": 5, "metadata": {"a": 1}, "op": "x"}
    ((found,), _, _) = read("{name: a, decoder: debezium}", message({"op": "r", "after": row, "source": {"ts_ms": 1}}))
    assert (found["timestamp_"], found["key"], found["key_"], found["type"], found["seq"], found["op"]) == (
        "t", "k", "k2", "gold", 5, "x",
    )  # fmt: skip


def test_a_message_that_is_no_change_of_a_row_is_refused_with_what_to_declare():
    _, letters, _ = read("{name: a, decoder: debezium}", message({"id": 1}))
    assert letters[0].reason == (
        "expected a Debezium event with op, before and after, got members 'id'; for rows without this envelope declare "
        "decoder: json"
    )


def test_cloudevents_of_two_sources_with_the_same_id_are_two_events():
    event = {"specversion": "1.0", "id": "1", "type": "t", "data": {"value": 1}}
    frames, _ = decode_chunk(
        "mono.a",
        0,
        [message({**event, "source": "/a"}), message({**event, "source": "/b"}), message({**event, "source": "/a"})],
    )
    assert frames[0].frame.id_strings() == ["/a:1", "/b:1", "/a:1"]


def test_headers_of_a_cloudevent_are_honoured_unless_the_record_is_one_of_ours():
    headers = [("ce_id", b"9"), ("ce_source", b"/s"), ("ce_type", b"t"), ("ce_time", b"2025-09-28T10:30:00Z")]
    text = [*headers, ("content-type", b"text/plain")]
    mono = {
        "event_id": "e",
        "timestamp": "2025-09-28T10:31:00Z",
        "source_stream": "stream:a",
        "type": "A",
        "metadata": {},
    }
    frames, letters = decode_chunk(
        "mono.a", 0,
        [
            message({"value": 1, "type": "inner", "event_id": 5}, headers=headers),
            message(b"21 degrees", headers=text),
            message(mono, headers=headers),
            message({"value": 2}, headers=[("ce_id", b"9"), ("ce_source", b"/astrocyte/run/a")]),
        ],
    )  # fmt: skip
    assert letters == []
    rows, ids = frames[0].frame.event_fields(), frames[0].frame.id_strings()
    assert (rows[0]["timestamp"], rows[0]["type"], rows[0]["type_"], rows[0]["event_id"]) == (START_US, "t", "inner", 5)
    assert ids[:3] == ["/s:9", "/s:9", "e"]
    assert rows[1]["data"] == "21 degrees"
    assert (rows[2]["type"], rows[2].get("ce_source")) == ("A", None)
    assert rows[3]["ce_source"] is None


def test_an_incomplete_structured_cloudevent_is_refused():
    _, letters, _ = read("{name: a, decoder: cloudevents}", message({"specversion": "1.0", "id": "1", "data": {}}))
    assert letters[0].reason.endswith("it has no source, type")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'"', "line 1: a quotation mark is not closed"),
        (b'1,2\n3,"4', "line 2: a quotation mark is not closed"),
        (b'1,"2"3', "line 1: not CSV: ',' expected after '\"'"),
        (b"1,\xff", "expected CSV in UTF-8, got the byte 0xff at 2"),
        (b"", "expected lines of CSV, got a message of 0 bytes without any"),
        (b"\n\r\n", "expected lines of CSV, got a message of 3 bytes without any"),
    ],
)
def test_a_message_that_is_no_csv_is_refused_with_what_is_wrong(value, reason):
    text = "{name: a, decoder: {name: csv, columns: [n, value]}}"
    rows, letters, _ = read(text, message(b"1,2"), message(value, offset=1))
    assert len(rows) == 1
    assert [(letter.offset, letter.reason) for letter in letters] == [(1, reason)]


def test_lines_of_csv_keep_to_their_columns():
    text = "{name: a, decoder: {name: csv, columns: [time, key, value, note]}, fields: {value: float64}}"
    rows, letters, frames = read(
        text, message(b'1759055400,k,1.5,007\n1759055401,k,,"a,b"\n', key=None), message(b"1,2", offset=1)
    )
    assert [(row["timestamp"], row["value"], row["note"]) for row in rows] == [
        (START_US, 1.5, "007"),
        (START_US + 1_000_000, None, "a,b"),
    ]
    assert len(set(frames[0].frame.id_strings())) == 2
    assert letters[0].reason == "line 1 has 2 values; expected 4: time, key, value, note"
    whole = text.replace("float64", "int64")
    rows, letters, _ = read(whole, message(b"1759055400,k,5.0,x", key=None), message(b"1759055400,k,5.5,x", key=None))
    assert ([row["value"] for row in rows], letters[0].reason) == ([5], "field 'value' is 5.5; expected int64")
    _, letters, _ = read(text, message(b"1759055400,k,1.5,x\n1759055400,k,x,x", key=None))
    assert [(letter.row, letter.reason) for letter in letters] == [(1, "field 'value' is 'x'; expected float64")]


# -- Avro ------------------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "ts", "type": "long"}, {"name": "value", "type": "double"}],
}


def avro(number: int, record: dict) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(SCHEMA), record)
    return b"\0" + number.to_bytes(4, "big") + stream.getvalue()


@pytest.fixture
def registry():
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/schemas/ids/7"
            self.send_response(200 if known else 404 if self.path != "/schemas/ids/9" else 500)
            self.end_headers()
            if known:
                self.wfile.write(json.dumps({"schema": json.dumps(SCHEMA)}).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_avro_records_are_read_with_the_schemas_of_a_registry(registry):
    text = f"{{name: a, decoder: {{name: avro, registry: '{registry}'}}}}"
    good = avro(7, {"ts": START_US, "value": 1.5})
    values = [good, avro(8, {"ts": 1, "value": 1}), good[:9], good + b"x", b"{}"]
    rows, letters, _ = read(text, *(message(value, offset=offset) for offset, value in enumerate(values)))
    assert [(row["timestamp"], row["value"]) for row in rows] == [(START_US, 1.5)]
    reasons = {letter.offset: letter.reason for letter in letters}
    assert reasons[1].startswith("schema 8 is unknown to the registry")
    assert "decoder 'avro' failed" in reasons[2]
    assert "1 bytes follow the record of schema 7" in reasons[3]
    assert "expected Avro in Confluent's wire format" in reasons[4]


def test_messages_wait_for_a_registry_that_does_not_answer(registry):
    for address, number in ((registry, 9), ("http://127.0.0.1:9", 7)):
        text = f"{{name: a, decoder: {{name: avro, registry: '{address}'}}}}"
        with pytest.raises(SchemaRegistryUnavailable):
            read(text, message(avro(number, {"ts": 1, "value": 1})))


def test_an_unknown_schema_of_a_folder_is_named(tmp_path):
    (tmp_path / "7.avsc").write_text(json.dumps(SCHEMA))
    text = f"{{name: a, decoder: {{name: avro, schemas: '{tmp_path}'}}}}"
    rows, letters, _ = read(
        text, message(avro(7, {"ts": START_US, "value": 2})), message(avro(8, {"ts": 1, "value": 1}))
    )
    assert [row["value"] for row in rows] == [2.0]
    assert "there is no file 8.avsc" in letters[0].reason
