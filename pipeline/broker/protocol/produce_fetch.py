"""Hand-written codecs of the two requests that carry records: Produce 0 to 7 and Fetch 4 to 11.

Records are not copied here: a Produce request yields views into its frame, a Fetch response is a list of buffers.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, MalformedRequest
from astrocyte.pipeline.broker.protocol.schema import INT32, NULLABLE_STRING, STRING

__all__ = [
    "FetchPartition",
    "FetchRequest",
    "FetchedPartition",
    "ProduceRequest",
    "ProducedPartition",
    "read_fetch",
    "read_produce",
    "write_fetch",
    "write_produce",
]

Buffer = bytes | bytearray | memoryview

_ACKS = struct.Struct(">hi")
_FETCH_HEAD = struct.Struct(">iiiib")
_FETCH_PARTITION = {
    4: struct.Struct(">iqi"),  # partition, offset, max bytes
    5: struct.Struct(">iqqi"),  # partition, offset, log start, max bytes
    9: struct.Struct(">iiqqi"),  # partition, leader epoch, offset, log start, max bytes
}
_PRODUCED = struct.Struct(">ihqq")  # partition, error, base offset, log append time
_FETCHED = struct.Struct(">ihqq")  # partition, error, high watermark, last stable offset
_NO_ABORTED_TRANSACTIONS = b"\0\0\0\0"
_NO_PREFERRED_REPLICA = b"\xff\xff\xff\xff"
_NO_THROTTLE = b"\0\0\0\0"
_NO_SESSION = b"\0\0\0\0\0\0"  # error 0, session 0: this broker has no fetch sessions


class ProduceRequest(NamedTuple):
    """``topics``: (topic, [(partition, records or None)]); records are views into the request's frame."""

    transactional_id: str | None
    acks: int
    topics: list[tuple[str, list[tuple[int, memoryview | None]]]]


class ProducedPartition(NamedTuple):
    """Outcome for the records of one partition."""

    partition: int
    error: ErrorCode
    base_offset: int
    log_start: int


class FetchPartition(NamedTuple):
    """Part of a fetch request for one partition."""

    partition: int
    offset: int
    max_bytes: int


class FetchRequest(NamedTuple):
    """``topics``: (topic, [FetchPartition])."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    topics: list[tuple[str, list[FetchPartition]]]


class FetchedPartition(NamedTuple):
    """Part of a fetch response for one partition."""

    partition: int
    error: ErrorCode
    high_watermark: int
    log_start: int
    records: Buffer


def _topic_name(data: memoryview, at: int) -> tuple[str, int]:
    name, at = STRING.read(data, at)
    return str(name), at


def _count(data: memoryview, at: int) -> tuple[int, int]:
    count, at = INT32.read(data, at)
    if not 0 <= count <= len(data) - at:
        raise MalformedRequest(f"an array of {count} elements at byte {at} exceeds the {len(data)} bytes present")
    return count, at


def read_produce(data: memoryview, at: int, version: int) -> ProduceRequest:
    """Decode a Produce request whose body begins at a position of its frame."""
    transactional_id = None
    if version >= 3:
        transactional_id, at = NULLABLE_STRING.read(data, at)
    try:
        acks, _timeout_ms = _ACKS.unpack_from(data, at)
    except struct.error:
        raise MalformedRequest("a Produce request ends before its topics") from None
    topic_count, at = _count(data, at + _ACKS.size)
    topics = []
    for _ in range(topic_count):
        topic, at = _topic_name(data, at)
        partition_count, at = _count(data, at)
        partitions: list[tuple[int, memoryview | None]] = []
        for _ in range(partition_count):
            index, at = INT32.read(data, at)
            length, at = INT32.read(data, at)
            if length < 0:
                partitions.append((index, None))
                continue
            if at + length > len(data):
                raise MalformedRequest(f"records of {length} bytes at byte {at} exceed the {len(data)} bytes present")
            partitions.append((index, data[at : at + length]))
            at += length
        topics.append((topic, partitions))
    return ProduceRequest(transactional_id, acks, topics)


def write_produce(version: int, topics: list[tuple[str, list[ProducedPartition]]]) -> list[Buffer]:
    """Encode the response to a Produce request."""
    out = bytearray()
    INT32.write(len(topics), out)
    for topic, partitions in topics:
        STRING.write(topic, out)
        INT32.write(len(partitions), out)
        for index, error, base_offset, log_start in partitions:
            answer = _PRODUCED.pack(index, error, base_offset, -1)
            out += answer if version >= 2 else answer[:14]
            if version >= 5:
                out += log_start.to_bytes(8, "big", signed=True)
    if version >= 1:
        out += _NO_THROTTLE
    return [out]


def read_fetch(data: memoryview, at: int, version: int) -> FetchRequest:
    """Decode a Fetch request whose body begins at a position of its frame."""
    try:
        _replica, max_wait_ms, min_bytes, max_bytes, _isolation = _FETCH_HEAD.unpack_from(data, at)
        at += _FETCH_HEAD.size
        if version >= 7:
            at += 8  # session id and epoch: every response is complete
        topic_count, at = _count(data, at)
        packing = _FETCH_PARTITION[9 if version >= 9 else 5 if version >= 5 else 4]
        offset_field = 2 if version >= 9 else 1
        topics = []
        for _ in range(topic_count):
            topic, at = _topic_name(data, at)
            partition_count, at = _count(data, at)
            partitions = []
            for _ in range(partition_count):
                values = packing.unpack_from(data, at)
                at += packing.size
                partitions.append(FetchPartition(values[0], values[offset_field], values[-1]))
            topics.append((topic, partitions))
    except struct.error:
        raise MalformedRequest(f"a Fetch request ends at byte {len(data)}, before its last partition") from None
    return FetchRequest(max_wait_ms, min_bytes, max_bytes, topics)


def write_fetch(version: int, topics: list[tuple[str, list[FetchedPartition]]]) -> list[Buffer]:
    """Encode the response to a Fetch request; the records remain separate buffers."""
    head = bytearray(_NO_THROTTLE)
    if version >= 7:
        head += _NO_SESSION
    out: list[Buffer] = [head]
    INT32.write(len(topics), head)
    for topic, partitions in topics:
        STRING.write(topic, head)
        INT32.write(len(partitions), head)
        for index, error, high_watermark, log_start, records in partitions:
            head += _FETCHED.pack(index, error, high_watermark, high_watermark)
            if version >= 5:
                head += log_start.to_bytes(8, "big", signed=True)
            head += _NO_ABORTED_TRANSACTIONS
            if version >= 11:
                head += _NO_PREFERRED_REPLICA
            head += len(records).to_bytes(4, "big")
            if records:
                head = bytearray()
                out += (records, head)
    return out
