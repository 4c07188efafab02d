"""The index of a recorded log: which records each of its zstd frames holds.

It is at the end of the file in a skippable frame, which every zstd tool ignores. It is used only where it describes
the whole file, so logs joined with ``cat`` are read from their beginning.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson
import zstandard

from astrocyte.pipeline.kafka.record import ConsumedRecord, is_frame
from astrocyte.pipeline.recording.format import MOST_PARTITIONS
from astrocyte.schemas.times import us_from_ms

__all__ = ["SKIPPABLE", "Block", "Index", "Totals", "index_frame", "read_index"]

SKIPPABLE: Final = b"\x5a\x2a\x4d\x18"
"""Magic number of the index's skippable frame; other tools use the other fifteen."""
_FOOTER: Final = struct.Struct("<QI8s")  # where the skippable frame starts, length of the index, magic
_MAGIC: Final = b"ASTROIDX"
_MOST_BYTES: Final = 256 << 20
"""Of an index: it has some tens of bytes for each block of megabytes."""


@dataclass(frozen=True, slots=True)
class Block:
    """One zstd frame of a log: its position and size in bytes, and its content."""

    offset: int
    size: int
    records: int
    first_ms: int
    """Least timestamp in the block."""
    last_ms: int
    """Greatest timestamp in the block or any before it."""


@dataclass(slots=True)
class Totals:
    """Content of a log for one topic."""

    messages: dict[int, int] = field(default_factory=dict)
    """Number of messages by partition."""
    frames: int = 0
    bytes: int = 0
    """Of keys and values."""
    largest: int = 0
    first_ms: int = -1
    """Least and greatest timestamp; -1 where no message has one between 1970 and 2100."""
    last_ms: int = -1

    @property
    def count(self) -> int:
        """Number of messages."""
        return sum(self.messages.values())

    def add(self, record: ConsumedRecord) -> None:
        """Count one message."""
        size = len(record.value or b"") + len(record.key or b"")
        self.messages[record.partition] = self.messages.get(record.partition, 0) + 1
        self.frames += is_frame(record)
        self.bytes += size
        self.largest = max(self.largest, size)
        if us_from_ms(record.timestamp_ms) is not None:
            self.first_ms = record.timestamp_ms if self.first_ms < 0 else min(self.first_ms, record.timestamp_ms)
            self.last_ms = max(self.last_ms, record.timestamp_ms)

    def joined(self, other: Totals) -> Totals:
        """The sum of both totals."""
        messages = dict(self.messages)
        for number, count in other.messages.items():
            messages[number] = messages.get(number, 0) + count
        firsts = [first for first in (self.first_ms, other.first_ms) if first >= 0]
        return Totals(
            messages,
            self.frames + other.frames,
            self.bytes + other.bytes,
            max(self.largest, other.largest),
            min(firsts, default=-1),
            max(self.last_ms, other.last_ms),
        )


@dataclass(frozen=True, slots=True)
class Index:
    """The blocks of a log, and its content for each topic."""

    blocks: tuple[Block, ...]
    topics: dict[str, Totals] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Number of records in the log."""
        return sum(block.records for block in self.blocks)


def index_frame(blocks: Sequence[Block], topics: Mapping[str, Totals], compressor: zstandard.ZstdCompressor) -> bytes:
    """The index as the skippable frame that ends a log; it begins where the last block ends."""
    body = {
        "blocks": [[block.offset, block.size, block.records, block.first_ms, block.last_ms] for block in blocks],
        "topics": {topic: asdict(totals) for topic, totals in topics.items()},
    }
    data = compressor.compress(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS))
    start = blocks[-1].offset + blocks[-1].size if blocks else 0
    data += _FOOTER.pack(start, len(data), _MAGIC)
    return SKIPPABLE + struct.pack("<I", len(data)) + data


def read_index(path: str | Path) -> Index | None:
    """The index of a log, or None without one (plain, gzip, torn, or several logs in one file)."""
    path = Path(path)
    if str(path) == "-" or not path.is_file():
        return None
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        if length < _FOOTER.size + 8:
            return None
        file.seek(length - _FOOTER.size)
        start, size, magic = _FOOTER.unpack(file.read())
        if magic != _MAGIC or start + 8 + size + _FOOTER.size != length:
            return None
        file.seek(start)
        if file.read(4) != SKIPPABLE:
            return None
        file.seek(start + 8)
        data = file.read(size)
    try:
        if not 0 <= zstandard.frame_content_size(data) <= _MOST_BYTES:
            return None  # what it claims is taken from memory before it is unpacked
        body = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
        numbers = [number for entry in body["blocks"] for number in entry]
        if not all(type(number) is int and -(2**63) <= number < 2**63 for number in numbers):
            return None
        if any(entry[0] < 0 or entry[1] < 0 for entry in body["blocks"]):
            return None
        topics = {
            topic: Totals(**totals | {"messages": {int(n): count for n, count in totals["messages"].items()}})
            for topic, totals in body["topics"].items()
        }
        numbers = [number for totals in topics.values() for number in (totals.messages or (-1,))]
        if not all(0 <= number < MOST_PARTITIONS for number in numbers):
            return None
        return Index(tuple(Block(*entry) for entry in body["blocks"]), topics)
    except (zstandard.ZstdError, orjson.JSONDecodeError, IndexError, KeyError, TypeError, ValueError, AttributeError):
        return None
