"""What is stored of a refused or audited record is what was received."""

import base64

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte import CATALOG, Engine, load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.sinks.audit.sink import AuditSink, audit_entries
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records

DNA = {
    "id": "evt_dna_1735689601000_e03e014df5f78bb3a3d98b3bdc0cb93b",
    "type": "dna.mutation_applied",
    "source": "dna_service",
    "target": None,
    "timestamp": 1735689601.0,
    "payload": {"snapshot_id": 1, "agent_id": "agent-1", "version": 2, "parent_snapshot_id": 0, "reason": "x"},
    "meta": {"correlation_id": "c-9", "version": "1.0"},
}
TOPIC = "mono.dna.mutation_applied"


def raw(body: object, offset: int = 0) -> RawRecord:
    return RawRecord(offset, 1_735_689_601_000, b"agent-1", orjson.dumps(body))


def test_a_dna_event_without_meta_is_a_dna_event():
    frames, letters = decode_chunk(TOPIC, 0, [raw({name: value for name, value in DNA.items() if name != "meta"})])
    assert letters == []
    (row,) = frames[0].frame.event_fields()
    assert (row["agent_id"], row["version"], row["type"]) == ("agent-1", 2, "dna.mutation_applied")
    assert frames[0].frame.id_strings() == [DNA["id"]]


def test_a_dna_event_whose_payload_is_no_object_says_so():
    _, letters = decode_chunk("mono.traits", 0, [raw({**DNA, "payload": "text"})])
    assert letters == []  # without an object it is a flat record
    (stream,) = load_rules("streams: [{name: traits, decoder: dna}]").streams
    _, letters = decode_chunk(
        "mono.traits", 0, [raw({**DNA, "payload": "text"})], decoders=Decoders(Contracts([stream]))
    )
    assert letters[0].reason == "'payload' is 'text'; expected a JSON object, as in the dna envelope"


def test_an_id_that_has_its_prefix_gets_no_second_one():
    frames, _ = decode_chunk(TOPIC, 0, [raw(DNA)])
    (record,) = frame_to_records(frames[0].frame, CATALOG)
    assert orjson.loads(record.value)["id"] == DNA["id"]
    assert dict(record.headers)["ce_id"].decode() == DNA["id"]


def test_a_row_of_another_type_that_no_json_record_can_hold_is_refused_alone():
    event_type = CATALOG.find("dna.mutation_applied")
    columns = {field.name: pa.nulls(2, field.type) for field in event_type.arrow_schema()}
    columns |= {"timestamp": np.array([10**15, 10**15 + 1]), "key": pa.array(["agent-1", "agent-2"])}
    columns |= {"version": ["two", 2], "mutation_keys": pa.array(["[half of a list", "[]"])}
    frame = Frame.from_columns(event_type.stream, "run-1", columns, version=event_type.version)
    message = RawRecord(5, 1_735_689_601_000, b"agent-1", encode_frame(frame))
    (read,), (letter,) = decode_chunk(TOPIC, 0, [message])
    assert read.frame.values("version") == [2]
    assert (letter.row, letter.reason) == (0, "field 'version' is 'two'; expected int64")
    (row,) = decode_frame(base64.b64decode(letter.payload_b64)).rows()
    assert (row["version"], row["mutation_keys"]) == ("two", "[half of a list")


def test_a_refused_record_is_in_its_dead_letter_as_it_was_received():
    rules = load_rules("""
validators: [{stream: dna.mutation_applied, where: "version > 5"}]
rules: [{name: r, by: agent_id, seq: [{as: a, stream: dna.mutation_applied}]}]
""")
    domain = Domain(
        0,
        [DomainGroup("agent_id", Engine(rules, validated=True), {"dna.mutation_applied": TOPIC})],
        topics=[TOPIC],
        validators=Validators(rules.validators),
    )
    message = RawRecord(3, 1_735_689_601_000, b"\x00\xff", orjson.dumps(DNA), [("trace", b"t")])
    (letter,) = domain.feed(TOPIC, [message]).dead_letters
    assert base64.b64decode(letter.payload_b64) == message.value
    assert base64.b64decode(letter.key_b64) == b"\x00\xff"
    assert [(name, base64.b64decode(value)) for name, value in letter.headers] == [("trace", b"t")]
    assert (letter.offset, letter.row) == (3, None)


@pytest.mark.asyncio
async def test_the_audit_log_keeps_a_record_as_it_was_received(tmp_path):
    message = raw(DNA)
    frames, _ = decode_chunk(TOPIC, 0, [message])
    sink = AuditSink(f"sqlite:///{tmp_path}/audit.db", now_us=lambda: 0)
    await sink.open()
    assert await sink.write(frames) == []
    await sink.close()
    (entry,) = audit_entries(f"sqlite:///{tmp_path}/audit.db")
    assert entry.payload.encode() == message.value
    assert entry.event_id == DNA["id"]
