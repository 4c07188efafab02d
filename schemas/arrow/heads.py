"""Small Arrow streams, many at once: those of one stream and producer begin with the same schema but for two numbers.

Arrow reads a schema anew with each message, which costs more than the rows of a small one. A schema message that was
read once is recognised by its bytes, without the digits of the metadata that differ, and the batches of messages that
have the same one are read as those of a single stream. Everything else is left to `schemas.arrow.stream.read_stream`:
this module says None of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import pyarrow as pa

from astrocyte.schemas.arrow.messages import (
    BATCH,
    DICTIONARY,
    END,
    I32,
    I64,
    START,
    U32,
    field_place,
    followed,
    may_be_packed,
    places_of_message,
)
from astrocyte.schemas.arrow.stream import MOST_BYTES, refuse_large
from astrocyte.schemas.arrow.usual import IDENTIFIED, is_usual_schema
from astrocyte.schemas.errors import InvalidFrame

__all__ = ["Head", "Heads", "body_of", "head_of", "read_bodies"]

_VALUES: Final = struct.Struct("<H2xHH")
"""Entries of a dictionary that does not add to another: their size, and the places of its number and its values."""
_MOST: Final = 512
_MOST_LAYOUTS: Final = 16
_LONGEST: Final = 16_384
_VARYING: Final = (b"seq", b"watermark")
"""Metadata of which the value differs between messages of one stream and producer."""

T = TypeVar("T")
_Layout = tuple[tuple[bytes, int, int], ...]
"""Where values of the metadata are: name, begin and end."""


@dataclass(frozen=True, slots=True, eq=False)
class Head(Generic[T]):
    """What the schema messages of one stream and producer say, apart from the numbers that differ."""

    start: bytes
    """A schema message without metadata, with which a stream of batches begins."""
    schema: pa.Schema
    dictionaries: int
    """Number of its columns that have one."""
    about: T
    """What `Heads` was given to make of the first of them."""


class Heads(Generic[T]):
    """Recognises schema messages. At most 512 kinds are remembered, and as many threads as like may ask.

    ``make`` is called with the first of each kind, as a stream without batches. It may raise InvalidFrame.
    """

    def __init__(self, make: Callable[[bytes], T]) -> None:
        self._make = make
        self._layouts: dict[int, tuple[_Layout, ...]] = {}
        self._known: dict[tuple[object, ...], Head[T]] = {}

    def find(self, data: bytes) -> tuple[Head[T], Mapping[bytes, bytes]] | None:
        """The head of which a schema message is, and its values of the metadata that differ."""
        for layout in self._layouts.get(len(data), ()):
            head = self._known.get((layout, *_around(data, layout)))
            if head is not None:
                return head, {name: data[begin:end] for name, begin, end in layout}
        return None

    def learn(self, data: bytes) -> bool:
        """Remember a schema message; False if it cannot be: batches that follow others of its kind are read alone."""
        if len(data) > _LONGEST:
            return False
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(data))
            # Of a message that this library would not write so it is not known which numbers its dictionaries have.
            if not is_usual_schema(schema) or schema.serialize().to_pybytes() != data:
                return False
            about = self._make(data + END)
        except (InvalidFrame, pa.ArrowException, ValueError, OSError, EOFError):
            return False
        layout, layouts = _layout(data), self._layouts.get(len(data), ())
        if len(self._known) >= _MOST or len(layouts) >= _MOST_LAYOUTS:
            self._known.clear()
            self._layouts.clear()
            layouts = ()
        plain = schema.remove_metadata()
        self._known[(layout, *_around(data, layout))] = Head(
            plain.serialize().to_pybytes(),
            plain,
            sum(map(pa.types.is_dictionary, plain.types)),
            about,
        )
        self._layouts[len(data)] = layouts if layout in layouts else (*layouts, layout)
        return True


def _layout(data: bytes) -> _Layout:
    """Where the values that differ are, of a schema message that Arrow has read."""
    head = data[START.size :]
    schema = followed(head, field_place(head, U32.unpack_from(head)[0], 2))
    place = field_place(head, schema, 2)
    entries = followed(head, place) if place else 0
    found = []
    for number in range(U32.unpack_from(head, entries)[0] if place else 0):
        entry = followed(head, entries + 4 + 4 * number)
        (key, key_end), (begin, end) = (_text(head, field_place(head, entry, each)) for each in (0, 1))
        if head[key:key_end] in _VARYING:
            found.append((head[key:key_end], START.size + begin, START.size + end))
    return tuple(sorted(found, key=lambda each: each[1]))


def _text(head: bytes, place: int) -> tuple[int, int]:
    """Begin and end of a string."""
    if not place:
        return 0, 0
    begin = followed(head, place)
    return begin + 4, begin + 4 + int(U32.unpack_from(head, begin)[0])


def _around(data: bytes, layout: _Layout) -> list[bytes]:
    """The bytes without the values."""
    parts, at = [], 0
    for _, begin, end in layout:
        parts.append(data[at:begin])
        at = end
    parts.append(data[at:])
    return parts


def head_of(payload: bytes) -> bytes:
    """The first message of a stream, which is that of its schema; no bytes where there is none."""
    if len(payload) < START.size:
        return b""
    marker, length = START.unpack_from(payload)
    end = START.size + length
    return payload[:end] if marker == -1 and length and end <= len(payload) else b""


def body_of(payload: bytes, at: int, dictionaries: int) -> bytes | None:
    """The messages that follow at ``at``: as many dictionaries as are given, and one batch, nothing of it compressed.

    They are empty where the stream ends there. None for anything else, such as dictionaries that add to others.
    """
    numbers: set[int] = set()
    first, size = at, len(payload)
    try:
        if payload[at : at + START.size] == END:
            return b""
        for _ in range(dictionaries + 1):
            marker, length = START.unpack_from(payload, at)
            start = at + START.size
            at = start + length
            if marker != -1 or at > size:
                return None
            head = payload[start:at]
            kind, content, body = _message(head)
            at += body
            if body < 0 or at > size:
                return None
            if kind == BATCH:
                complete = len(numbers) == dictionaries and not may_be_packed(head, content)
                return payload[first:at] if complete and payload[at : at + START.size] in (b"", END) else None
            if kind != DICTIONARY:
                return None
            entries = content - I32.unpack_from(head, content)[0]
            entries_size, number, values = _VALUES.unpack_from(head, entries)
            if entries < 0 or entries_size != _VALUES.size or not values:
                return None
            numbers.add(I64.unpack_from(head, content + number)[0] if number else 0)
            content += values
            if may_be_packed(head, followed(head, content)):
                return None
    except (struct.error, IndexError, ValueError):
        pass
    return None


def _message(head: bytes) -> tuple[int, int, int]:
    """Kind of a message, place of its content, size of its body. Raises ValueError, struct.error and IndexError."""
    kind, header, body = places_of_message(head)
    if not (kind and header and body):
        raise ValueError("a message without a body")
    return head[kind], followed(head, header), I64.unpack_from(head, body)[0]


def read_bodies(head: Head[T], bodies: Sequence[bytes], exact: Collection[str] | None) -> list[pa.RecordBatch] | None:
    """The batches, checked as `schemas.arrow.stream.read_stream` does; None if any is not in the form of frames."""
    if exact is not None and "event_id" in exact:
        return None
    try:
        batches = list(pa.ipc.open_stream(b"".join((head.start, *bodies, END))))
        if len(batches) != len(bodies):
            return None
        for batch, body in zip(batches, bodies, strict=True):
            batch.validate(full=True)
            refuse_large(head.schema, [batch], MOST_BYTES, len(body))
        table = pa.Table.from_batches(batches, head.schema)
    except (InvalidFrame, pa.ArrowException, ValueError, OSError, EOFError):
        return None
    indices = map(head.schema.get_field_index, IDENTIFIED)
    return None if any(table.column(index).null_count for index in indices if index >= 0) else batches
