"""The sink that writes JSON lines to compressed files, one line per event or record, with rotation.

Files are named ``events-000001.jsonl.zst`` and up; each batch is a skippable zstd frame with the offsets of the batch,
and a frame with its lines, flushed to disk before the write is confirmed. A line holds topic, partition, offset, row
and the JSON record. `agents.sinks.blocks` says how several processes share the folder, and how a record that was
written before is recognised.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
import zstandard

from astrocyte.agents.sinks.base import Rejected, Sourced, SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.block_marks import Rows
from astrocyte.agents.sinks.blocks import BlockFolder, Head
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.topics import TopicPartition

__all__ = ["FileSink", "read_lines"]

_SIZES: Final = struct.Struct("<IQ")
"""Length of the skippable frame after this number, and length of the frame that follows it."""
_MOST_HEAD: Final = 1 << 26


class FileSink:
    """Compressed JSON lines in ``folder``; a new file begins after ``rotate_bytes`` (compressed)."""

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = "file",
        rotate_bytes: int = 64 << 20,
        level: int = 3,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self.folder = Path(folder)
        self._files = BlockFolder(self.folder, _Zstd(level), sink=name, rotate_bytes=rotate_bytes)
        self._retry = retry or RetryPolicy(name)

    async def open(self) -> None:
        """Read the offsets of all batches, and cut an incomplete one of a process that ended. Raises SinkError."""
        await asyncio.to_thread(self._files.open)

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Append the lines that are not stored yet; returns when they are on disk."""
        rows = await asyncio.to_thread(lambda: list(_rows(batch)))
        await self._retry.persist(lambda: asyncio.to_thread(self._files.append, rows), self._files.retriable)
        return []

    async def close(self) -> None:
        """Close the file."""
        self._files.close()


def _rows(batch: Sequence[Sourced]) -> Iterator[Rows]:
    for item in batch:
        place, lines = TopicPartition(item.topic, item.partition), []
        if isinstance(item, SourcedRecords):
            for row, record in enumerate(item.records):
                lines.append(_line(item, item.kind, row, orjson.dumps(record, default=repr)))
        elif item.frame.num_rows:
            for row, made in enumerate(frame_to_records(item.frame)):
                lines.append(_line(item, item.frame.stream, row, made.value))
        yield Rows(place, np.array([item.offset_of(row) for row in range(len(lines))], np.int64), lines)


def _line(item: Sourced, stream: str, row: int, record: bytes) -> bytes:
    place: dict[str, Any] = {"topic": item.topic, "partition": item.partition, "offset": item.offset_of(row)}
    if isinstance(item, SourcedFrame) and (inside := item.row_of(row)) is not None:
        place["row"] = inside
    return orjson.dumps(place | {"stream": stream, "record": orjson.Fragment(record)}) + b"\n"


class _Zstd:
    """Blocks of two zstd frames, of which readers skip the first."""

    prefix = "events"
    suffix = ".jsonl.zst"
    magic = struct.pack("<I", 0x184D2A5A)

    def __init__(self, level: int) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)

    def pack(self, mark: bytes, text: bytes) -> bytes:
        """A head, and the lines."""
        body = self._compressor.compress(text)
        return self.magic + _SIZES.pack(len(mark) + 8, len(body)) + mark + body

    def head(self, file: BinaryIO) -> Head | None:
        """The head at the file's position; None where it is incomplete. Raises ValueError where there is none."""
        size = len(self.magic) + _SIZES.size
        data = file.read(size)
        if not data.strip(b"\0"):
            return None
        if data[: len(self.magic)] != self.magic[: len(data)]:
            raise ValueError("not a block")
        if len(data) < size:
            return None
        length, body_bytes = _SIZES.unpack(data[len(self.magic) :])
        if not 8 <= length <= _MOST_HEAD:
            raise ValueError("not a block")
        mark = file.read(length - 8)
        return Head(size + len(mark), body_bytes, mark) if len(mark) == length - 8 else None

    def unpack(self, body: bytes) -> bytes:
        """Lines of a block. Raises ValueError if they are damaged."""
        try:
            return zstandard.ZstdDecompressor().decompress(body)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    def identity(self, line: bytes) -> int:
        """Stream and record, which has an id; the same record may be in a topic twice."""
        return hash(line[line.index(b'"stream":') :])


def read_lines(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Every line of the files of a folder, file by file, in the order in which each was written."""
    for path in sorted(Path(folder).glob("events-*.jsonl.zst")):
        with path.open("rb") as file:
            rest = b""
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while piece := reader.read(1 << 20):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield orjson.loads(line)
