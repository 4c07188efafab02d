"""The messages of an Arrow IPC stream, as far as their bytes say without Arrow: kinds, places and sizes.

Offsets are those of Arrow's format documents ("IPC Streaming Format", ``Message.fbs``: flatbuffers). Bytes that are no
such messages raise struct.error, IndexError or ValueError, or InvalidFrame.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from astrocyte.schemas.errors import InvalidFrame

__all__ = [
    "BATCH",
    "DICTIONARY",
    "END",
    "I32",
    "I64",
    "START",
    "U32",
    "field_place",
    "followed",
    "holds_no_rows",
    "may_be_packed",
    "places_of_message",
    "unpacked_bytes",
]

START: Final = struct.Struct("<iI")
"""What each message begins with: a marker (-1), and the length of its head."""
END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""What stands at the end of a stream in place of a message."""
I32, U32, I64 = struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<q")
_U16: Final = struct.Struct("<H")
DICTIONARY, BATCH = 2, 3
"""Kinds of messages."""
_MESSAGE: Final = struct.Struct("<H4xHHH")
"""Begin of the entries of a message: their size, and the places of its kind, its header and the size of its body."""
_UNPACKED_ENTRIES: Final = 4 + 2 * 3
"""Bytes of the entries of a batch's table that ends before how it is compressed."""
_PACKED_ELSEWHERE: Final = -1
"""In place of a size: the buffer is not compressed."""


def holds_no_rows(payload: bytes | memoryview) -> bool:
    """Whether a stream ends after its schema, as that of a frame which only says how far time is.

    Only two heads are read. Of other bytes nothing is said: False.
    """
    if len(payload) < START.size:
        return False
    marker, length = START.unpack_from(payload)
    end = START.size + length
    return marker == -1 and payload[end : end + START.size] == END


def unpacked_bytes(payload: bytes | memoryview) -> int:
    """Bytes to which the compressed buffers of a stream claim to unpack; 0 if it is not compressed.

    Only the heads of its messages are read.
    """
    view = memoryview(payload)
    total = at = 0
    while at + START.size <= len(view):
        marker, length = START.unpack_from(view, at)
        if marker != -1:
            raise InvalidFrame(f"expected an Arrow IPC stream, got {len(view)} other bytes")
        if length == 0:
            break
        start = at + START.size
        head = view[start : start + length]
        kind, header, size = places_of_message(head)
        body = I64.unpack_from(head, size)[0] if size else 0
        at = start + length + body
        if body < 0 or at > len(view):
            raise InvalidFrame(f"expected an Arrow IPC stream, got one that is cut off after {len(view)} bytes")
        if kind and header and head[kind] in (DICTIONARY, BATCH):
            batch = followed(head, header)
            if head[kind] == DICTIONARY:
                batch = followed(head, field_place(head, batch, 1))
            if may_be_packed(head, batch):
                total += _claimed(head, batch, view[start + length : at])
    return total


def places_of_message(head: bytes | memoryview) -> tuple[int, int, int]:
    """Positions of the kind of a message, of its header and of the size of its body; 0 for one that is not there."""
    table = U32.unpack_from(head)[0]
    entries = table - int(I32.unpack_from(head, table)[0])
    if entries >= 0 and entries + _MESSAGE.size <= len(head):
        size, kind, header, body = _MESSAGE.unpack_from(head, entries)
        if size >= _MESSAGE.size and kind and header and body:
            return table + kind, table + header, table + body
    return field_place(head, table, 1), field_place(head, table, 2), field_place(head, table, 3)


def may_be_packed(head: bytes | memoryview, batch: int) -> bool:
    """Whether a batch has one of the last fields of its table: what says how it is compressed, or counts of views.

    ``batch`` is its place in the head of its message. Raises ValueError and struct.error.
    """
    entries = batch - int(I32.unpack_from(head, batch)[0])
    if entries < 0:
        raise ValueError("a table before the begin of its message")
    return int(_U16.unpack_from(head, entries)[0]) > _UNPACKED_ENTRIES


def field_place(data: bytes | memoryview, table: int, number: int) -> int:
    """Position of a field of a flatbuffers table; 0 if the table does not have it."""
    entries = table - int(I32.unpack_from(data, table)[0])
    place = 4 + 2 * number
    if entries < 0:
        raise ValueError("a table before the begin of its message")
    if place >= _U16.unpack_from(data, entries)[0]:
        return 0
    offset = int(_U16.unpack_from(data, entries + place)[0])
    return table + offset if offset else 0


def followed(data: bytes | memoryview, place: int) -> int:
    """Where the offset at a place leads."""
    return place + int(U32.unpack_from(data, place)[0])


def _claimed(head: memoryview, batch: int, body: memoryview) -> int:
    """Bytes to which the compressed buffers of a batch claim to unpack."""
    field = field_place(head, batch, 2)
    vector = followed(head, field) if field else 0
    count = int(U32.unpack_from(head, vector)[0]) if field else 0
    variadic = field_place(head, batch, 4)
    if variadic:
        place = followed(head, variadic)
        counts = np.frombuffer(head, "<i8", int(U32.unpack_from(head, place)[0]), place + 4)
        if ((counts < 0) | (counts > count)).any() or counts.sum() > count:
            raise ValueError(f"views into {counts.max()} buffers, of which the batch has {count}")
    if not field_place(head, batch, 3):
        return 0
    places = np.frombuffer(head, "<i8", 2 * count, vector + 4).reshape(-1, 2)
    if (places < 0).any():
        raise ValueError("a buffer before the begin of its message")
    total = 0
    for offset, length in places.tolist():
        if length:
            size = int(I64.unpack_from(body, offset)[0])
            if size < _PACKED_ELSEWHERE:
                raise ValueError(f"a buffer of {size} bytes")
            total += length if size == _PACKED_ELSEWHERE else size
    return total
