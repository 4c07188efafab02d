"""Kafka's record batch, version 2: header, checks, and decoding of records where the broker needs it.

Batches are stored unchanged. The broker writes only the base offset and the leader epoch, which the checksum does not
cover; it decodes a batch only for compaction, for the search for an offset by time, and where every record must have a
key.
https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.kafka.codecs import compressed, unpacked

__all__ = [
    "HEADER_BYTES",
    "BatchHeader",
    "Record",
    "checksum_holds",
    "read_header",
    "records_of",
    "refuse_unless_appendable",
    "refuse_without_keys",
    "stamp_offset",
    "with_records",
]

Buffer = bytes | bytearray | memoryview | mmap.mmap

_HEADER = struct.Struct(">qiibIhiqqqhii")
_OFFSET_AND_LENGTH = struct.Struct(">qi")
HEADER_BYTES = _HEADER.size
LENGTH_ENDS = 12  # the length field counts the bytes after itself
CHECKED_FROM = 21  # the checksum covers the attributes and everything after them
SMALLEST_LENGTH = HEADER_BYTES - LENGTH_ENDS
CODEC_BITS, TRANSACTIONAL, CONTROL = 0x07, 0x10, 0x20
_LONGEST_NUMBER: Final = 10
"""Bytes of the longest number of 64 bits. A longer one would cost time with the square of its length."""


class BatchHeader(NamedTuple):
    """The fixed part of a batch; timestamps are milliseconds, ``length`` counts the bytes that follow it."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Size of the whole batch in bytes."""
        return LENGTH_ENDS + self.length

    @property
    def next_offset(self) -> int:
        """The offset after the last one of the batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def plausible(self) -> bool:
        """Whether the fields outside the checksum are valid for a stored batch; random bytes seldom are."""
        return (
            self.magic == 2
            and self.leader_epoch == 0
            and self.length >= SMALLEST_LENGTH
            and self.last_offset_delta >= 0
        )


class Record(NamedTuple):
    """One record of a batch; ``raw`` is its encoded form, with deltas relative to the batch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    raw: bytes


def read_header(data: Buffer, at: int = 0) -> BatchHeader:
    """The header at a position. Raises struct.error if fewer than HEADER_BYTES follow."""
    return BatchHeader._make(_HEADER.unpack_from(data, at))


def checksum_holds(header: BatchHeader, batch: memoryview) -> bool:
    """Whether a batch (exactly its bytes) matches the checksum in its header."""
    return bool(crc32c(batch[CHECKED_FROM:]) == header.crc)


def refuse_unless_appendable(batch: memoryview, max_bytes: int) -> BatchHeader:
    """The header of a produced batch for one partition. Raises RequestRefused with Kafka's code if it is invalid."""
    if len(batch) < HEADER_BYTES:
        if len(batch) > 16 and batch[16] < 2:
            raise RequestRefused(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, "message sets older than Kafka 0.11")
        raise RequestRefused(ErrorCode.CORRUPT_MESSAGE, f"expected a record batch, got {len(batch)} bytes")
    header = read_header(batch)
    if header.magic < 2:
        raise RequestRefused(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, "message sets older than Kafka 0.11")
    if header.magic != 2 or header.length < SMALLEST_LENGTH or header.size > len(batch):
        raise RequestRefused(ErrorCode.CORRUPT_MESSAGE, f"a batch of {header.size} bytes in {len(batch)} bytes")
    if len(batch) > max_bytes:
        raise RequestRefused(ErrorCode.MESSAGE_TOO_LARGE, f"expected at most {max_bytes} bytes, got {len(batch)}")
    if header.size != len(batch):
        raise RequestRefused(ErrorCode.INVALID_RECORD, "more than one batch for one partition in a request")
    if not checksum_holds(header, batch):
        raise RequestRefused(ErrorCode.CORRUPT_MESSAGE, "the checksum does not match")
    if header.attributes & TRANSACTIONAL:
        raise RequestRefused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not supported")
    if header.attributes & CONTROL or header.record_count < 1 or header.record_count != header.last_offset_delta + 1:
        raise RequestRefused(
            ErrorCode.INVALID_RECORD, f"{header.record_count} records up to delta {header.last_offset_delta}"
        )
    return header


def stamp_offset(batch: memoryview, header: BatchHeader, base_offset: int) -> BatchHeader:
    """Write the assigned base offset into the bytes of a batch; returns the new header."""
    _OFFSET_AND_LENGTH.pack_into(batch, 0, base_offset, header.length)
    batch[12:16] = b"\0\0\0\0"
    return header._replace(base_offset=base_offset, leader_epoch=0)


def refuse_without_keys(header: BatchHeader, batch: memoryview) -> None:
    """Raises RequestRefused with Kafka's code for a record without a key: a compacted topic could never drop it."""
    try:
        missing = sum(record.key is None for record in records_of(header, batch))
    except ValueError as error:
        raise RequestRefused(ErrorCode.CORRUPT_MESSAGE, str(error)) from None
    if missing:
        raise RequestRefused(
            ErrorCode.INVALID_RECORD, f"{missing} records without a key; a compacted topic needs one in each"
        )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_NUMBER, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise ValueError(f"a number of more than {_LONGEST_NUMBER} bytes")


def records_of(header: BatchHeader, batch: Buffer) -> Iterator[Record]:
    """The records of a batch. Raises ValueError where its body is damaged or its codec unknown."""
    body = bytes(batch[HEADER_BYTES:])
    if codec := header.attributes & CODEC_BITS:
        try:
            body = unpacked(codec, body)
        except ValueError as error:
            raise ValueError(f"the batch at {header.base_offset} cannot be decoded: {error}") from error
    try:
        yield from _records_in(header, body)
    except IndexError:
        raise ValueError(f"the batch at {header.base_offset} ends inside a record") from None


def _records_in(header: BatchHeader, body: bytes) -> Iterator[Record]:
    at = 0
    for _ in range(header.record_count):
        begin = at
        length, at = _varint(body, at)
        end = at + length
        if length < 0 or end > len(body):
            raise ValueError(f"a record of {length} bytes exceeds its batch")
        timestamp_delta, at = _varint(body, at + 1)
        offset_delta, at = _varint(body, at)
        key_length, at = _varint(body, at)
        key = body[at : at + key_length] if key_length >= 0 else None
        at += max(key_length, 0)
        value_length, at = _varint(body, at)
        value = body[at : at + value_length] if value_length >= 0 else None
        if at + max(value_length, 0) > end:
            # Fields that reach into other records would be copied once for each of them.
            raise ValueError(f"a record of {length} bytes, with a key of {key_length} and a value of {value_length}")
        offset, timestamp = header.base_offset + offset_delta, header.base_timestamp + timestamp_delta
        yield Record(offset, timestamp, key, value, body[begin:end])
        at = end


def with_records(header: BatchHeader, kept: list[Record]) -> bytes:
    """The batch with only some of its records: same offsets, timestamps, codec and producer, and a new checksum."""
    body = b"".join(record.raw for record in kept)
    if codec := header.attributes & CODEC_BITS:
        body = compressed(codec, body)
    out = bytearray(_HEADER.pack(*header._replace(length=SMALLEST_LENGTH + len(body), record_count=len(kept))))
    out += body
    struct.pack_into(">I", out, CHECKED_FROM - 4, crc32c(memoryview(out)[CHECKED_FROM:]))
    return bytes(out)
