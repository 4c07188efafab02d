"""The sink that writes JSON lines to compressed files, one line an event or record, with rotation.

Files are named ``events-000001.jsonl.zst`` and up; each batch is one zstd frame, flushed to the disk before the write
is confirmed. A line holds where it was read (topic, partition, offset, row) and the JSON record. What was written is
known by these places: a batch written again, also after a crash, adds nothing, and a frame cut short by a crash is
cut off when the folder is opened. The folder belongs to one sink and to one Kafka cluster at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
import zstandard

from astrocyte.agents.sinks.base import Rejected, SinkError, Sourced, SourcedRecords, highest_offsets
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.topics import TopicPartition

__all__ = ["FileSink", "read_lines"]

_POSITIONS: Final = "positions.json"
_PIECE: Final = 1 << 16
"""Bytes given to zstd at a time: what is left over of them at the end of a frame is copied."""
_TRANSIENT: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.ENFILE, errno.EMFILE}


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
        self._rotate_bytes = rotate_bytes
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._retry = retry or RetryPolicy(name)
        self._positions: dict[TopicPartition, int] = {}
        self._number = 0
        self._file: BinaryIO | None = None
        self._end = 0
        """Length of the current file up to which it is confirmed."""

    async def open(self) -> None:
        """Find out what was written, and cut off what was not written whole. Raises SinkError."""
        await asyncio.to_thread(self._open)

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Append the lines that are not there yet, as one frame; returns when they are on the disk."""
        if self._file is None:
            raise SinkError(f"sink {self.name!r} was written to before it was opened; await open() first")
        lines = await asyncio.to_thread(lambda: b"".join(self._lines(batch)))
        if lines:
            await self._retry.persist(lambda: asyncio.to_thread(self._append, lines), self._transient)
        for place, following in highest_offsets(batch).items():
            self._positions[place] = max(self._positions.get(place, 0), following)
        return []

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stored = self.folder / _POSITIONS
            entries = orjson.loads(stored.read_bytes()) if stored.exists() else []
            self._positions = {TopicPartition(topic, partition): following for topic, partition, following in entries}
            numbers = [int(path.name[7:13]) for path in self.folder.glob("events-*.jsonl.zst")]
            self._number = max(numbers, default=1)
            self._recover(self._path())
        except OSError as error:
            raise SinkError(f"the folder {self.folder} of sink {self.name!r} cannot be used: {error}") from error

    def _path(self) -> Path:
        return self.folder / f"events-{self._number:06d}.jsonl.zst"

    def _recover(self, path: Path) -> None:
        """Take the positions of the newest file from its lines, and cut it after its last whole frame."""
        data = path.read_bytes() if path.exists() else b""
        whole = 0
        for end, text in _frames(data):
            for line in text.splitlines():
                entry = orjson.loads(line)
                place = TopicPartition(entry["topic"], entry["partition"])
                self._positions[place] = max(self._positions.get(place, 0), entry["offset"] + 1)
            whole = end
        self._file = path.open("ab", buffering=0)
        if whole < len(data):
            self._file.truncate(whole)
        self._end = whole

    def _lines(self, batch: Sequence[Sourced]) -> Iterator[bytes]:
        for item in batch:
            known = self._positions.get(TopicPartition(item.topic, item.partition), 0)
            if isinstance(item, SourcedRecords):
                for row, record in enumerate(item.records):
                    if item.offset_of(row) >= known:
                        yield _line(item, item.kind, item.offset_of(row), None, orjson.dumps(record, default=repr))
            elif item.frame.num_rows:
                offsets = item.offsets if item.offsets is not None else np.full(item.frame.num_rows, item.offset)
                fresh = np.flatnonzero(offsets >= known)
                if len(fresh):
                    whole = len(fresh) == item.frame.num_rows
                    records = frame_to_records(item.frame if whole else item.frame.take(fresh))
                    for row, made in zip(fresh.tolist(), records, strict=True):
                        own = None if item.offsets is not None else row
                        yield _line(item, item.frame.stream, int(offsets[row]), own, made.value)

    def _append(self, lines: bytes) -> None:
        file = self._file
        assert file is not None
        try:
            file.seek(self._end)
            file.truncate()
            data = memoryview(self._compressor.compress(lines))
            length = len(data)
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            # The next attempt begins where the last confirmed frame ended.
            os.ftruncate(file.fileno(), self._end)
            raise
        self._end += length
        if self._end >= self._rotate_bytes:
            self._rotate(lines)

    def _rotate(self, lines: bytes) -> None:
        """Begin a new file; what the old ones hold is noted first, so that they need not be read again."""
        positions = dict(self._positions)
        for line in lines.splitlines():
            entry = orjson.loads(line)
            place = TopicPartition(entry["topic"], entry["partition"])
            positions[place] = max(positions.get(place, 0), entry["offset"] + 1)
        temporary = self.folder / (_POSITIONS + ".new")
        with temporary.open("wb") as output:
            output.write(orjson.dumps([[*place, following] for place, following in positions.items()]))
            output.flush()
            os.fsync(output.fileno())
        temporary.replace(self.folder / _POSITIONS)
        assert self._file is not None
        self._file.close()
        self._number += 1
        self._file = self._path().open("ab", buffering=0)
        self._end = 0

    def _transient(self, error: Exception) -> str | None:
        if isinstance(error, OSError) and error.errno in _TRANSIENT:
            return f"{self._path()}: {error.strerror}"
        return None


def _line(item: Sourced, stream: str, offset: int, row: int | None, record: bytes) -> bytes:
    place: dict[str, Any] = {"topic": item.topic, "partition": item.partition, "offset": offset}
    if row is not None:
        place["row"] = row
    return orjson.dumps(place | {"stream": stream, "record": orjson.Fragment(record)}) + b"\n"


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """End and text of each whole zstd frame; ends at the first that is cut short."""
    view, start = memoryview(data), 0
    while start < len(view):
        inflate = zstandard.ZstdDecompressor().decompressobj()
        text, read = bytearray(), start
        try:
            while read < len(view) and not inflate.eof:
                piece = view[read : read + _PIECE]
                text += inflate.decompress(piece)
                read += len(piece)
        except zstandard.ZstdError:
            return
        if not inflate.eof:
            return
        start = read - len(inflate.unused_data)
        yield start, bytes(text)


def read_lines(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Every line of a folder's files, in the order in which they were written."""
    for path in sorted(Path(folder).glob("events-*.jsonl.zst")):
        for _, text in _frames(path.read_bytes()):
            for line in text.splitlines():
                yield orjson.loads(line)
