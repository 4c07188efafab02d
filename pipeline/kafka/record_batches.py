"""Compressed record batches of an answer, unpacked within a limit before aiokafka reads them.

aiokafka unpacks whatever a batch holds: of ten kilobytes of zstd it makes gigabytes, and again after each restart. So
the batches are unpacked here, and aiokafka gets them in the clear. In the place of a batch that cannot be unpacked
stands one record, which is refused with the reason where it is decoded.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
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
    """The batches of one partition as an answer holds them (the last may be cut), with none that is compressed.

    The same object where none is. Where together they have more than ``most`` bytes, some of the last are left out.
    """
    parts: list[bytes | memoryview] = []
    view, at, size, changed = memoryview(data), 0, 0, False
    while at + _HEAD.size <= len(data):
        end = at + _LENGTH_ENDS + int.from_bytes(view[at + 8 : at + 12], "big", signed=True)
        if not at + _HEAD.size <= end <= len(data):
            break
        packed = view[at:end]
        head, batch = _HEAD.unpack_from(packed), packed
        if head[3] == _MAGIC and head[5] & _CODEC and not head[5] & _CONTROL:
            batch, changed = memoryview(_plain(packed, most)), True
        if parts and size + len(batch) > most:
            return b"".join(parts)
        parts.append(batch)
        size += len(batch)
        at = end
    return b"".join([*parts, view[at:]]) if changed else data


def _plain(batch: memoryview, most: int) -> bytes:
    head = list(_HEAD.unpack_from(batch))
    try:
        if crc32c(batch[_CHECKED_FROM:]) != head[4]:
            return bytes(batch)  # aiokafka says so
        body = unpacked(head[5] & _CODEC, bytes(batch[_HEAD.size :]), most)
    except ValueError as error:
        return _refused(head, batch, str(error))
    head[1], head[5] = _HEAD.size - _LENGTH_ENDS + len(body), head[5] & ~_CODEC
    made = bytearray(_HEAD.pack(*head) + body)
    struct.pack_into(">I", made, 17, crc32c(memoryview(made)[_CHECKED_FROM:]))
    return bytes(made)


def _refused(head: list[int], batch: memoryview, reason: str) -> bytes:
    """A batch of one record, at the last offset, which says why they cannot be read; its value is how they begin."""
    first, last = head[0], head[0] + head[6]
    text = (
        f"{head[12]} records, offsets {first} to {last}, in a batch of {len(batch)} bytes that cannot be read: {reason}"
    )
    made = DefaultRecordBatchBuilder(_MAGIC, 0, bool(head[5] & _TRANSACTIONAL), head[9], head[10], head[11], 1 << 20)
    made.append(0, head[8], None, bytes(batch[:_SHOWN]), [(REFUSED_HEADER, text.encode())])
    return last.to_bytes(8, "big", signed=True) + bytes(made.build())[8:]
