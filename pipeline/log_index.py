"""The index of a recorded log: which records each of its zstd frames holds.

It lies at the file's end in a skippable frame, which every zstd tool passes over. It is used only where it describes
the whole file, so logs joined by ``cat`` are read from their beginning.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import zstandard

__all__ = ["SKIPPABLE", "Block", "Index", "index_frame", "read_index"]

SKIPPABLE: Final = b"\x5a\x2a\x4d\x18"
"""How the skippable frame of an index begins; other tools use the other fifteen of these magic numbers."""
_FOOTER: Final = struct.Struct("<QI8s")  # where the skippable frame starts, length of the index, magic
_MAGIC: Final = b"ASTROIDX"


@dataclass(frozen=True, slots=True)
class Block:
    """One zstd frame of a log: where it lies, and what it holds."""

    offset: int
    size: int
    records: int
    first_ms: int
    """Least timestamp in the block."""
    last_ms: int
    """Greatest timestamp in the block or any before it."""


@dataclass(frozen=True, slots=True)
class Index:
    """The blocks of a log and the number of records of each (topic, partition)."""

    blocks: tuple[Block, ...]
    counts: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Number of records in the log."""
        return sum(block.records for block in self.blocks)


def index_frame(
    blocks: Sequence[Block], counts: Mapping[str, Mapping[int, int]], compressor: zstandard.ZstdCompressor
) -> bytes:
    """The index as the skippable frame that ends a log; it begins where the last block ends."""
    body = {
        "blocks": [[block.offset, block.size, block.records, block.first_ms, block.last_ms] for block in blocks],
        "counts": {topic: {str(number): n for number, n in parts.items()} for topic, parts in counts.items()},
    }
    data = compressor.compress(orjson.dumps(body))
    start = blocks[-1].offset + blocks[-1].size if blocks else 0
    data += _FOOTER.pack(start, len(data), _MAGIC)
    return SKIPPABLE + struct.pack("<I", len(data)) + data


def read_index(path: str | Path) -> Index | None:
    """The index of a log, or None where it has none (plain, gzip, torn, or several logs in one file)."""
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
        body = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
        return Index(
            tuple(Block(*entry) for entry in body["blocks"]),
            {topic: {int(n): count for n, count in parts.items()} for topic, parts in body["counts"].items()},
        )
    except (zstandard.ZstdError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
