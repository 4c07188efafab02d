"""Record batches of an answer, unpacked within a limit and checked before aiokafka reads them.

aiokafka unpacks whatever a batch holds: of ten kilobytes of zstd it makes gigabytes, and again after each restart. So
the batches are unpacked here, and aiokafka gets them in the clear. It also stops for ever at a record that it cannot
read, such as one whose header has a name that is not UTF-8, which Kafka accepts. In the place of such a record, and of
a batch that cannot be unpacked, stands one that is refused with the reason where it is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from operator import lt
from typing import Any, Final

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from crc32c import crc32c

from astrocyte.agents.ingest.decoders import REFUSED_HEADER
from astrocyte.pipeline.kafka.codecs import unpacked

__all__ = ["BATCH_BYTES", "in_the_clear", "unpack_answers"]

BATCH_BYTES: Final = 256 << 20
"""What one batch may unpack to, and what the batches of one answer may together before the rest is fetched again."""

_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_ENDS: Final = 12
_CHECKED_FROM: Final = 21
_MAGIC: Final = 2
_SHOWN: Final = 1024
_LAST_OFFSET: Final = (1 << 63) - 1
_CODEC, _TRANSACTIONAL, _CONTROL = 0x07, 0x10, 0x20


def unpack_answers(consumer: Any) -> None:
    """Let a consumer of aiokafka, which has started, get its batches in the clear; call it before it fetches."""
    consumer._fetcher._client = _UnpackingClient(consumer._fetcher._client)


class _UnpackingClient:
    """aiokafka's client as the fetcher sees it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        response = await self._client.send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            response.topics = [
                (topic, [(*row[:-1], in_the_clear(row[-1]) if row[-1] else row[-1]) for row in rows])
                for topic, rows in response.topics
            ]
        return response


def in_the_clear(data: bytes, most: int = BATCH_BYTES) -> bytes:
    """The batches of one partition as an answer holds them (the last may be cut), none compressed, all readable.

    The same object where nothing was to be done. Where together they have more than ``most`` bytes, some of the last
    are left out.
    """
    parts: list[bytes | memoryview] = []
    view, at, size, changed = memoryview(data), 0, 0, False
    while at + _HEAD.size <= len(data):
        end = at + _LENGTH_ENDS + int.from_bytes(view[at + 8 : at + 12], "big", signed=True)
        if not at + _HEAD.size <= end <= len(data):
            break
        packed = view[at:end]
        head, batch = _HEAD.unpack_from(packed), packed
        if head[3] == _MAGIC and not head[5] & _CONTROL:
            if head[5] & _CODEC:
                batch, changed = memoryview(_plain(packed, most)), True
            if not _is_readable(batch) and _checksum_holds(batch):
                batch, changed = memoryview(b"".join(_pieces(batch))), True
        if parts and size + len(batch) > most:
            return b"".join(parts)
        parts.append(batch)
        size += len(batch)
        at = end
    return b"".join([*parts, view[at:]]) if changed else data


def _plain(batch: memoryview, most: int) -> bytes:
    head = list(_HEAD.unpack_from(batch))
    try:
        if not _checksum_holds(batch):
            return bytes(batch)  # aiokafka says so
        body = unpacked(head[5] & _CODEC, bytes(batch[_HEAD.size :]), most)
    except ValueError as error:
        which = f"{head[12]} records, offsets {head[0]} to {head[0] + head[6]}, in a batch of {len(batch)} bytes"
        return _refused(head, head[0] + head[6], bytes(batch[:_SHOWN]), f"{which} that cannot be read: {error}")
    head[5] &= ~_CODEC
    return _batch(head, body)


def _checksum_holds(batch: memoryview) -> bool:
    return bool(crc32c(batch[_CHECKED_FROM:]) == _HEAD.unpack_from(batch)[4])


def _batch(head: list[int], body: bytes) -> bytes:
    """A batch with a body; its length and checksum are written into the head."""
    head[1] = _HEAD.size - _LENGTH_ENDS + len(body)
    made = bytearray(_HEAD.pack(*head) + body)
    struct.pack_into(">I", made, 17, crc32c(memoryview(made)[_CHECKED_FROM:]))
    return bytes(made)


def _is_readable(batch: memoryview | bytes) -> bool:
    """Whether aiokafka reads all records of an uncompressed batch, at offsets that ascend within those of the batch."""
    head = _HEAD.unpack_from(batch)
    try:
        offsets = [record.offset for record in DefaultRecordBatch(batch)]
    except Exception:  # noqa: BLE001  whatever it raises here, it would raise later and for ever
        return False
    if not offsets:
        return True
    ascend = all(map(lt, offsets, islice(offsets, 1, None)))
    return ascend and offsets[0] >= head[0] and offsets[-1] <= head[0] + head[6]


def _pieces(batch: memoryview) -> Iterator[bytes]:
    """Batches for one that aiokafka cannot read: its readable records, and one refused record for each of the others.

    Where the bounds of a record are damaged, one refused record stands for it and all that follow. The last piece ends
    at the last offset of the batch, so that the next fetch begins after it.
    """
    head = list(_HEAD.unpack_from(batch))
    base, last, count = head[0], head[0] + head[6], head[12]
    body = bytes(batch[_HEAD.size :])
    whole: list[bytes] = []
    at, before = 0, base - 1
    for number in range(count):
        end = _end_of_record(body, at)
        raw = body[at:end] if end else body[at:]
        offset = _offset_alone(head, raw, before) if end else None
        if offset is not None:
            whole.append(raw)
        else:
            if whole:
                yield _batch([*head[:6], before - base, *head[7:12], len(whole)], b"".join(whole))
                whole.clear()
            ends = not end or number == count - 1
            offset = last if ends else min(before + 1, last)
            which = f"{1 if end else count - number} of {count} records, from offset {before + 1},"
            yield _refused(head, offset, raw, f"{which} cannot be read")
            if ends:
                return
        at, before = end, offset
    if whole:
        yield _batch([*head[:12], len(whole)], b"".join(whole))


def _end_of_record(body: bytes, at: int) -> int:
    """Where the record at a place ends, by the length that it begins with; 0 if that is no valid length."""
    value = 0
    for shift, byte in zip(range(0, 35, 7), body[at : at + 5], strict=False):
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            end = at + ((value >> 1) ^ -(value & 1))
            return end if at < end <= len(body) else 0
    return 0


def _offset_alone(head: list[int], raw: bytes, before: int) -> int | None:
    """The offset of a record, read as the only one of its batch; None if it is unreadable or not after ``before``."""
    alone = _batch([*head[:12], 1], raw)
    if not _is_readable(alone):
        return None
    offset: int = next(iter(DefaultRecordBatch(alone))).offset
    return offset if offset > before else None


def _refused(head: list[int], offset: int, begin: bytes, reason: str) -> bytes:
    """A batch of one record, which says why what stood at its offset cannot be read; its value is how that begins."""
    made = DefaultRecordBatchBuilder(_MAGIC, 0, bool(head[5] & _TRANSACTIONAL), head[9], head[10], head[11], 1 << 20)
    made.append(0, head[8], None, begin[:_SHOWN], [(REFUSED_HEADER, reason.encode())])
    at = max(head[0], min(offset, _LAST_OFFSET))
    return at.to_bytes(8, "big", signed=True) + bytes(made.build())[8:]
