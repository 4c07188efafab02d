"""Snapshots of a domain's state as bytes: nested mappings of arrays, bytes, strings and numbers.

A snapshot is split into parts of at most `PART_BYTES`, because brokers limit the size of a message. Two slots are
written alternately, so that a crash while one is written leaves the other complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
import zstandard

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["PART_BYTES", "SnapshotDamaged", "SnapshotParts", "pack_state", "parts_of", "unpack_state"]

PART_BYTES: Final = 512 * 1024
_MAGIC: Final = b"ASN1"
_MOST_BYTES: Final = 8 << 30
"""Largest state. What a snapshot claims is taken from memory before it is unpacked."""
_AT_ONCE: Final = 64 << 20
_USUAL_RATIO: Final = 256
_PIECE: Final = 1 << 10


class SnapshotDamaged(AstrocyteError):
    """A message of the state topic that is no part of a snapshot; ``number`` is the greatest of the others."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


def pack_state(state: Mapping[str, Any]) -> bytes:
    """Bytes of the state, compressed. Arrays keep their type and shape; keys are strings."""
    buffers: list[bytes] = []

    def encode(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"m": {str(name): encode(item) for name, item in value.items()}}
        if isinstance(value, np.ndarray):
            buffers.append(np.ascontiguousarray(value).tobytes())
            return {"a": [_layout_of(value.dtype), value.shape, len(buffers) - 1]}
        if isinstance(value, bytes | bytearray | memoryview):
            buffers.append(bytes(value))
            return {"b": len(buffers) - 1}
        if isinstance(value, list | tuple):
            return {"l": [encode(item) for item in value]}
        if isinstance(value, np.generic):
            return {"v": value.item()}
        return {"v": value}

    head = orjson.dumps({"tree": encode(state), "sizes": [len(buffer) for buffer in buffers]})
    body = b"".join([_MAGIC, len(head).to_bytes(4, "big"), head, *buffers])
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(body)


def unpack_state(data: bytes) -> dict[str, Any]:
    """The state from `pack_state`'s bytes; arrays are writable copies. Raises AstrocyteError if they are damaged."""
    try:
        body = _unpacked(data)
        if body[:4] != _MAGIC:
            raise ValueError("not a snapshot")
        start = 8 + int.from_bytes(body[4:8], "big")
        head = orjson.loads(body[8:start])
        buffers = []
        for size in head["sizes"]:
            buffers.append(body[start : start + size])
            start += size
        if start != len(body):
            raise ValueError("wrong length")
    except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise AstrocyteError(f"expected a snapshot, got {len(data)} bytes that are none: {error}") from error

    def decode(node: dict[str, Any]) -> Any:
        ((kind, value),) = node.items()
        if kind == "m":
            return {name: decode(item) for name, item in value.items()}
        if kind == "a":
            dtype, shape, index = value
            return np.frombuffer(buffers[index], _dtype_of(dtype)).reshape(shape).copy()
        if kind == "b":
            return buffers[value]
        if kind == "l":
            return [decode(item) for item in value]
        return value

    try:
        state = decode(head["tree"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise AstrocyteError(f"expected a snapshot, got a damaged one: {type(error).__name__}: {error}") from error
    if not isinstance(state, dict):
        raise AstrocyteError(f"expected a snapshot, got one of a {type(state).__name__}")
    return state


def _unpacked(data: bytes) -> bytes:
    """The bytes before they were compressed. A claim that the bytes hardly can hold takes memory only as they come."""
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"it would have {size} bytes; expected 0 to {_MOST_BYTES}")
    if size <= max(_AT_ONCE, _USUAL_RATIO * len(data)):
        return zstandard.ZstdDecompressor().decompress(data)
    frame, found = zstandard.ZstdDecompressor().decompressobj(), bytearray()
    for at in range(0, len(data), _PIECE):
        found += frame.decompress(data[at : at + _PIECE])
    if len(found) != size:
        raise ValueError(f"it has {len(found)} bytes and not {size}")
    return bytes(found)


def _layout_of(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON. For records with offsets and alignment: compiled code distinguishes such types."""
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names] if dtype.fields else []
    return {
        "names": list(dtype.names),
        "formats": [_layout_of(part[0]) for part in fields],
        "offsets": [part[1] for part in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
    }


def _dtype_of(layout: Any) -> np.dtype[Any]:
    if isinstance(layout, str):
        return np.dtype(layout)
    parts = {name: layout[name] for name in ("names", "offsets", "itemsize")}
    formats = [_dtype_of(part) for part in layout["formats"]]
    return np.dtype({**parts, "formats": formats}, align=layout["aligned"])  # type: ignore[call-overload,no-any-return]


def parts_of(name: str, slot: int, number: int, data: bytes, writer: str = "") -> list[tuple[bytes, bytes]]:
    """Messages (key, value) of one snapshot; compaction keeps the newest of each key, and thus of each slot.

    ``writer`` names the process: one that was stopped, lost its partitions and goes on may write the same number as its
    successor, and parts of the two must not be taken for one snapshot.
    """
    count = max(1, -(-len(data) // PART_BYTES))
    messages = []
    for index in range(count):
        head = orjson.dumps({"number": number, "part": index, "parts": count, "bytes": len(data), "writer": writer})
        chunk = data[index * PART_BYTES : (index + 1) * PART_BYTES]
        messages.append((f"{name}/{slot}/{index}".encode(), len(head).to_bytes(2, "big") + head + chunk))
    return messages


@dataclass(slots=True)
class SnapshotParts:
    """Collects the messages of a state topic and returns the newest complete snapshot of each name."""

    _found: dict[str, dict[tuple[int, str], dict[int, bytes]]] = field(default_factory=dict)
    """Parts by name, by number and writer."""
    _counts: dict[tuple[str, int, str], int] = field(default_factory=dict)
    _damaged: dict[bytes, str] = field(default_factory=dict)
    """By key, why its newest message is no part of a snapshot."""

    def add(self, key: bytes, value: bytes | None) -> None:
        """Add one message, in the order of the topic."""
        self._damaged.pop(key, None)
        if value is None:
            return
        try:
            name = key.decode().rsplit("/", 2)[0]
            length = int.from_bytes(value[:2], "big")
            head = orjson.loads(value[2 : 2 + length])
            number, part, writer, count = int(head["number"]), int(head["part"]), str(head["writer"]), head["parts"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            self._damaged[key] = f"expected a part of a snapshot in the state topic, got the message {key!r}: {error}"
            return
        self._counts[name, number, writer] = count
        self._found.setdefault(name, {}).setdefault((number, writer), {})[part] = value[2 + length :]

    def add_all(self, messages: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Call `add` for each message."""
        for key, value in messages:
            self.add(key, value)

    def newest(self, name: str) -> tuple[int, bytes] | None:
        """Number and bytes of the newest snapshot of ``name`` that has all its parts; None if there is none.

        Raises SnapshotDamaged if a message that could be a part of it is damaged.
        """
        if self._damaged:
            reason = next(iter(self._damaged.values()))
            raise SnapshotDamaged(reason, max((number for _, number, _ in self._counts), default=0))
        for (number, writer), parts in sorted(
            self._found.get(name, {}).items(), key=lambda each: each[0], reverse=True
        ):
            if len(parts) == self._counts[name, number, writer]:
                return number, b"".join(parts[index] for index in sorted(parts))
        return None
