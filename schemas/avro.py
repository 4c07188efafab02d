"""Bounds of Avro messages: their levels and their values are counted before a reader builds them.

A schema that names itself lets a message nest without an end, on which a recursive reader ends the process; items
without bytes (nulls, empty records) can be any number in a few bytes. Messages of such schemas are walked through first
(`Bounds.check`); any other schema bounds its messages by itself, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.values.single import MOST_LEVELS

__all__ = ["Bounds"]

_VALUES: Final = 65_536
"""Values that any message may have."""
_VALUES_PER_BYTE: Final = 64
"""Values that a message may have for each of its bytes, beside those."""
_FIXED, _LONG, _BYTES, _UNION, _RECORD, _ARRAY, _MAP = range(7)
_PRIMITIVES: Final[Mapping[str, tuple[int, int]]] = {
    "null": (_FIXED, 0),
    "boolean": (_FIXED, 1),
    "float": (_FIXED, 4),
    "double": (_FIXED, 8),
    "int": (_LONG, 1),
    "long": (_LONG, 1),
    "enum": (_LONG, 1),
    "string": (_BYTES, 1),
    "bytes": (_BYTES, 1),
}
_LONGEST: Final = 10
"""Bytes of the longest integer of 64 bits."""


@dataclass(slots=True, eq=False)
class _Node:
    """One type of a schema: of a union or record its parts in order, of an array or map the type of its items."""

    kind: int
    least: int = 0
    """Bytes that a value has at least."""
    parts: list[_Node] = field(default_factory=list)
    values: int = 1
    """Values that one value holds at most, itself among them and without the items of arrays and maps."""
    levels: int = 0


class Bounds:
    """What bounds the messages of one schema.

    ``schema`` as fastavro parses it, with full names; ``named`` its records, enumerations and fixed types by name.
    Raises InvalidEvent for a schema that is nested too deeply itself.
    """

    def __init__(self, schema: Any, named: Mapping[str, Any]) -> None:
        self._named = named
        self._nodes: dict[str, _Node] = {}
        self._complete: set[str] = set()
        self._is_open = False
        try:
            self._root = self._node(schema)
        except RecursionError:
            raise InvalidEvent(f"its schema is nested too deeply; expected at most {MOST_LEVELS} levels") from None
        self.is_closed: Final = not (self._is_open or self._root.levels > MOST_LEVELS or self._root.values > _VALUES)
        """Whether the schema bounds its messages by itself, so that `check` finds nothing."""

    def _node(self, schema: Any) -> _Node:
        if isinstance(schema, str) and schema not in _PRIMITIVES:
            if schema in self._nodes:
                self._is_open |= schema not in self._complete  # a type that holds itself
                return self._nodes[schema]
            return self._node(self._named[schema])
        if isinstance(schema, list):
            return self._union(schema)
        kind = schema if isinstance(schema, str) else schema["type"]
        if not isinstance(kind, str):
            return self._node(kind)
        if kind in _PRIMITIVES:
            return _Node(*_PRIMITIVES[kind])
        if kind == "fixed":
            return _Node(_FIXED, int(schema["size"]))
        if kind in ("array", "map"):
            return self._items(kind, schema["items" if kind == "array" else "values"])
        if kind in ("record", "error"):
            return self._record(schema)
        return self._node(kind)

    def _union(self, schema: list[Any]) -> _Node:
        parts = [self._node(each) for each in schema]
        values = 1 + max((each.values for each in parts), default=0)
        return _Node(_UNION, 1, parts, values, max((each.levels for each in parts), default=0))

    def _items(self, kind: str, schema: Any) -> _Node:
        items = self._node(schema)
        # The key of an entry of a map has a byte at least.
        self._is_open |= items.values > _VALUES_PER_BYTE * (items.least + (kind == "map"))
        return _Node(_ARRAY if kind == "array" else _MAP, 1, [items], levels=1 + items.levels)

    def _record(self, schema: Mapping[str, Any]) -> _Node:
        node = _Node(_RECORD)
        self._nodes[schema["name"]] = node
        for each in schema["fields"]:
            part = self._node(each["type"])
            node.parts.append(part)
            node.least += part.least
            node.values = min(node.values + part.values, _VALUES + 1)
            node.levels = max(node.levels, part.levels)
        node.levels += 1
        self._complete.add(schema["name"])
        return node

    def check(self, data: bytes, start: int) -> None:
        """Walk through the message that begins at ``start``. Raises InvalidEvent for one that is out of bounds."""
        try:
            at = self._walk(data, start)
        except IndexError:
            at = len(data) + 1
        if at > len(data):
            raise InvalidEvent("the message ends within its record; is its schema that of its writer?")

    def _walk(self, data: bytes, at: int) -> int:
        """Where the record ends. Raises IndexError where the message ends before, or a union has no such branch."""
        end = len(data)
        left = _VALUES + _VALUES_PER_BYTE * end
        stack: list[tuple[_Node, Iterator[_Node]]] = []
        node = self._root
        while at <= end:
            kind = node.kind
            left -= 1
            if left < 0:
                raise _too_many(end)
            if kind == _FIXED:
                at += node.least
            elif kind == _LONG:
                while data[at] > 127:
                    at += 1
                at += 1
            elif kind == _BYTES:
                length, at = _integer(data, at)
                at += _not_negative(length)
            elif kind == _UNION:
                branch, at = _integer(data, at)
                node = node.parts[_not_negative(branch)]
                continue
            else:
                if len(stack) == MOST_LEVELS:
                    raise InvalidEvent(f"nested too deeply; expected at most {MOST_LEVELS} levels")
                stack.append((node, iter(node.parts) if kind == _RECORD else iter(())))
            while stack:
                outer, rest = stack[-1]
                found = next(rest, None)
                if found is None and outer.kind != _RECORD:
                    count, at = _block(data, at)
                    if count:
                        items = outer.parts[0]
                        least = items.least + (outer.kind == _MAP)
                        if count * least > end - at:
                            raise InvalidEvent(
                                f"a list or map has {count:,} items of {least} bytes at least, "
                                f"but {end - at:,} bytes follow"
                            )
                        if count * (1 + (outer.kind == _MAP)) > left:
                            raise _too_many(end)
                        rest = repeat(items, count)
                        stack[-1] = (outer, rest)
                        found = next(rest)
                if found is None:
                    stack.pop()
                    continue
                if outer.kind == _MAP:
                    length, at = _integer(data, at)
                    at += _not_negative(length)
                node = found
                break
            else:
                return at
        return at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A number as Avro writes lengths, counts and branches, and where it ends."""
    byte = data[at]
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), at + 1
    number, shift, first = byte & 127, 7, at
    while byte > 127:
        at += 1
        if at - first == _LONGEST:
            raise InvalidEvent("a length, count or branch has more than 64 bits")
        byte = data[at]
        number |= (byte & 127) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at + 1


def _block(data: bytes, at: int) -> tuple[int, int]:
    """The number of items of a block, and where they begin. A negative one is followed by the bytes of the block."""
    count, at = _integer(data, at)
    if count < 0:
        count = -count
        _, at = _integer(data, at)
    return count, at


def _not_negative(number: int) -> int:
    if number < 0:
        raise InvalidEvent(f"a length or branch is {number}; expected no negative one")
    return number


def _too_many(size: int) -> InvalidEvent:
    return InvalidEvent(
        f"more than {_VALUES + _VALUES_PER_BYTE * size:,} values in a message of {size:,} bytes; such lists have items "
        "without bytes (nulls, empty records)"
    )
