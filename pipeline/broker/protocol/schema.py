"""The wire types of Kafka's protocol: decoding of requests and encoding of responses.

Only the classic (non-flexible) encoding, which all supported versions use. A value is an int, bool, str, bytes, None,
list, or a dict by field name. Reading checks every length against the bytes present and raises MalformedRequest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from astrocyte.pipeline.broker.protocol.errors import MalformedRequest

__all__ = [
    "BOOL",
    "BYTES",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "NULLABLE_STRING",
    "STRING",
    "Api",
    "Array",
    "Field",
    "Struct",
    "WireType",
]

NEVER = 1 << 15  # above every version of the protocol


class WireType:
    """One type of the protocol: ``read(data, at) -> (value, at)`` and ``write(value, out)``."""

    def read(self, data: bytes | memoryview, at: int) -> tuple[Any, int]:
        """The value at a position, and the position after it."""
        raise NotImplementedError

    def write(self, value: Any, out: bytearray) -> None:
        """Append the value's bytes."""
        raise NotImplementedError

    def at_version(self, version: int) -> WireType:  # noqa: ARG002 - most types are the same in all versions
        """The type as it is in one version of its API."""
        return self


class _Number(WireType):
    def __init__(self, code: str) -> None:
        packing = struct.Struct(">" + code)
        self._unpack, self._pack, self.size, self.code = packing.unpack_from, packing.pack, packing.size, code

    def read(self, data: bytes | memoryview, at: int) -> tuple[Any, int]:
        try:
            return self._unpack(data, at)[0], at + self.size
        except struct.error:
            raise MalformedRequest(f"the request ends at byte {len(data)}, inside a number at byte {at}") from None

    def write(self, value: Any, out: bytearray) -> None:
        out += self._pack(value)


def _span(data: bytes | memoryview, at: int, length: int, what: str) -> tuple[bytes, int]:
    end = at + length
    if length < 0 or end > len(data):
        raise MalformedRequest(f"{what} of {length} bytes at byte {at} exceeds the {len(data)} bytes present")
    return bytes(data[at:end]), end


class _String(WireType):
    def __init__(self, *, nullable: bool) -> None:
        self.nullable = nullable

    def read(self, data: bytes | memoryview, at: int) -> tuple[str | None, int]:
        length, at = INT16.read(data, at)
        if length == -1 and self.nullable:
            return None, at
        raw, at = _span(data, at, length, "a string")
        try:
            return raw.decode(), at
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"a string that is not UTF-8: {error}") from None

    def write(self, value: Any, out: bytearray) -> None:
        if value is None and self.nullable:
            out += b"\xff\xff"
            return
        raw = value.encode()
        INT16.write(len(raw), out)
        out += raw


class _Bytes(WireType):
    def read(self, data: bytes | memoryview, at: int) -> tuple[bytes, int]:
        length, at = INT32.read(data, at)
        return _span(data, at, length, "a byte field")

    def write(self, value: Any, out: bytearray) -> None:
        INT32.write(len(value), out)
        out += value


class Array(WireType):
    """A list of one type; a null array (where allowed) is None."""

    def __init__(self, of: WireType, *, nullable: bool = False) -> None:
        self.of, self.nullable = of, nullable

    def at_version(self, version: int) -> WireType:
        """The array as it is in one version of its API."""
        return Array(self.of.at_version(version), nullable=self.nullable)

    def read(self, data: bytes | memoryview, at: int) -> tuple[list[Any] | None, int]:
        """The elements at a position, and the position after it."""
        count, at = INT32.read(data, at)
        if count == -1 and self.nullable:
            return None, at
        if not 0 <= count <= len(data) - at:  # an element has at least one byte
            raise MalformedRequest(f"an array of {count} elements at byte {at} exceeds the {len(data)} bytes present")
        values, read = [], self.of.read
        for _ in range(count):
            value, at = read(data, at)
            values.append(value)
        return values, at

    def write(self, value: Any, out: bytearray) -> None:
        """Append the elements."""
        if value is None and self.nullable:
            out += b"\xff\xff\xff\xff"
            return
        INT32.write(len(value), out)
        write = self.of.write
        for element in value:
            write(element, out)


class Field:
    """A field of a Struct, present from version ``since`` to version ``until``."""

    __slots__ = ("name", "since", "type", "until")

    def __init__(self, name: str, of: WireType, since: int = 0, until: int = NEVER) -> None:
        self.name, self.type, self.since, self.until = name, of, since, until


class Struct(WireType):
    """Named fields in order; a dict by field name. A field that a version does not have is neither read nor written."""

    def __init__(self, *fields: Field) -> None:
        self.fields = fields
        self._readers: list[tuple[str, Callable[..., tuple[Any, int]]]] = [(f.name, f.type.read) for f in fields]
        self._writers = [(f.name, f.type.write) for f in fields]

    @cache  # noqa: B019 - the schemas are module constants and live as long as the program
    def at_version(self, version: int) -> Struct:
        """The fields as they are in one version of its API."""
        return Struct(
            *(Field(f.name, f.type.at_version(version)) for f in self.fields if f.since <= version <= f.until)
        )

    def read(self, data: bytes | memoryview, at: int) -> tuple[dict[str, Any], int]:
        """The fields at a position, and the position after it."""
        values = {}
        for name, read in self._readers:
            values[name], at = read(data, at)
        return values, at

    def write(self, value: Any, out: bytearray) -> None:
        """Append the fields."""
        for name, write in self._writers:
            write(value[name], out)


NO_FIELDS = Struct()
INT8, INT16, INT32, INT64, BOOL = _Number("b"), _Number("h"), _Number("i"), _Number("q"), _Number("?")
STRING, NULLABLE_STRING, BYTES = _String(nullable=False), _String(nullable=True), _Bytes()


@dataclass(frozen=True, slots=True)
class Api:
    """One kind of request: key and name, oldest and newest supported version, and the fields of request and response.

    Produce and Fetch carry records and have hand-written codecs (produce_fetch.py) instead of fields.
    """

    key: int
    name: str
    oldest: int
    newest: int
    request: Struct = NO_FIELDS
    response: Struct = NO_FIELDS
