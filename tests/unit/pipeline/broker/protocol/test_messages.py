"""The messages' fields against kio, an independent codec generated from Kafka's own message definitions."""

from __future__ import annotations

import io
import random
import struct

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, MalformedRequest
from astrocyte.pipeline.broker.protocol.messages import APIS
from astrocyte.pipeline.broker.protocol.produce_fetch import (
    FetchedPartition,
    FetchPartition,
    ProducedPartition,
    read_fetch,
    read_produce,
    write_fetch,
    write_produce,
)
from tests.support.wire_values import value_of

KIO_BEGINS_AT = {0: 3}  # kio has left out the versions that Kafka 4 no longer serves
WITH_FIELDS = [
    pytest.param(api, version, id=f"{api.name}-{version}")
    for api in APIS.values()
    if api.name not in ("Produce", "Fetch")
    for version in range(api.oldest, api.newest + 1)
]
RECORDS_VERSIONS = {
    "Produce": range(3, APIS[0].newest + 1),
    "Fetch": range(APIS[1].oldest, APIS[1].newest + 1),
}


def through_kio(schema: type, data: bytes) -> bytes:
    """Bytes read by kio and written by it again; an error if they are not exactly one message."""
    entity, read = entity_reader(schema)(data, 0)
    assert read == len(data)
    out = io.BytesIO()
    entity_writer(schema)(out, entity)
    return out.getvalue()


@pytest.mark.parametrize(("api", "version"), WITH_FIELDS)
def test_requests_and_answers_are_byte_for_byte_what_kio_makes_of_them(api, version):
    for side, load in ((api.request, load_request_schema), (api.response, load_response_schema)):
        fields, schema = side.at_version(version), load(api.key, version)
        for seed in range(20):
            rng = random.Random(f"{api.name} {version} {seed}")
            value = value_of(fields, rng)
            if (
                isinstance(value, dict)
                and value.get("topics", ...) is None
                and (api.name, version)
                in (
                    ("Metadata", 0),
                    ("OffsetFetch", 1),
                )
            ):
                value["topics"] = []  # null exists from the next version on
            data = bytearray()
            fields.write(value, data)
            assert fields.read(bytes(data), 0) == (value, len(data))
            assert through_kio(schema, bytes(data)) == data


def test_a_metadata_answer_has_the_bytes_that_kafka_documents():
    out = bytearray()
    APIS[3].response.at_version(1).write(
        {
            "brokers": [{"node_id": 0, "host": "h", "port": 9092, "rack": None}],
            "controller_id": 0,
            "topics": [{"error_code": 3, "name": "t", "is_internal": False, "partitions": []}],
        },
        out,
    )
    assert out.hex(" ") == (
        "00 00 00 01 00 00 00 00 00 01 68 00 00 23 84 ff ff 00 00 00 00 00 00 00 01 00 03 00 01 74 00 00 00 00 00"
    )


@pytest.mark.parametrize("version", RECORDS_VERSIONS["Produce"])
def test_produce_is_read_and_answered_as_kio_does(version):
    request = b"\xff\xff" + struct.pack(">hi", -1, 30000) + struct.pack(">i", 1) + b"\0\3abc" + struct.pack(">i", 2)
    request += struct.pack(">ii", 5, 7) + b"records" + struct.pack(">ii", 6, -1)
    assert through_kio(load_request_schema(0, version), request) == request
    read = read_produce(memoryview(b"head" + request), 4, version)
    assert (read.transactional_id, read.acks) == (None, -1)
    assert [(topic, [(i, r and bytes(r)) for i, r in parts]) for topic, parts in read.topics] == [
        ("abc", [(5, b"records"), (6, None)])
    ]
    parts = [ProducedPartition(5, ErrorCode.NONE, 77, 3), ProducedPartition(6, ErrorCode.CORRUPT_MESSAGE, -1, -1)]
    answer = b"".join(bytes(part) for part in write_produce(version, [("abc", parts), ("é", [])]))
    assert through_kio(load_response_schema(0, version), answer) == answer


@pytest.mark.parametrize("version", RECORDS_VERSIONS["Fetch"])
def test_fetch_is_read_and_answered_as_kio_does(version):
    request = struct.pack(">iiiib", -1, 500, 1, 52428800, 0)
    if version >= 7:
        request += struct.pack(">ii", 0, -1)
    request += struct.pack(">i", 1) + b"\0\2ab" + struct.pack(">ii", 1, 9)
    request += struct.pack(">i", -1) if version >= 9 else b""
    request += struct.pack(">q", 1234567890123)
    request += struct.pack(">q", -1) if version >= 5 else b""
    request += struct.pack(">i", 1048576)
    request += struct.pack(">i", 0) if version >= 7 else b""
    request += b"\0\0" if version >= 11 else b""
    assert through_kio(load_request_schema(1, version), request) == request
    read = read_fetch(memoryview(b"head" + request), 4, version)
    assert read == (500, 1, 52428800, [("ab", [FetchPartition(9, 1234567890123, 1048576)])])
    partitions = [
        FetchedPartition(9, ErrorCode.NONE, 1234567890125, 17, b"some records"),
        FetchedPartition(10, ErrorCode.OFFSET_OUT_OF_RANGE, 5, 2, b""),
    ]
    answer = b"".join(bytes(part) for part in write_fetch(version, [("ab", partitions), ("c", [])]))
    assert through_kio(load_response_schema(1, version), answer) == answer


@pytest.mark.parametrize(("api", "version"), WITH_FIELDS)
def test_a_request_cut_anywhere_is_malformed_and_nothing_else(api, version):
    fields, data = api.request.at_version(version), bytearray()
    fields.write(value_of(fields, random.Random(4)), data)
    for end in range(len(data)):
        with pytest.raises(MalformedRequest):
            fields.read(bytes(data[:end]), 0)


@pytest.mark.parametrize("read", [read_produce, read_fetch])
def test_random_bytes_are_read_or_malformed(read):
    rng = random.Random(5)
    for _ in range(3000):
        data = bytearray(rng.choice([0, 0, 0, 1, 2, 255, rng.randrange(256)]) for _ in range(rng.randrange(80)))
        try:
            read(memoryview(data), 0, rng.choice([4, 5, 7, 9, 11]))
        except MalformedRequest:
            continue
