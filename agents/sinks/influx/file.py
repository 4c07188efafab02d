"""Line protocol in compressed files, for pipelines without InfluxDB; ``influx write --compression gzip`` loads them.

Files are named ``points-000001.lp.gz`` and up. Each batch is one gzip member, flushed to the disk before the write is
confirmed; its first line is a comment with the next offsets after the batch, so that a batch written again, also after
a crash, adds nothing. An incomplete member left by a crash is removed when the folder is opened. The folder belongs to
one sink and to one Kafka cluster at a time: offsets of another cluster would be mistaken for written ones.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import cramjam
import numpy as np
import orjson

from astrocyte.agents.sinks.base import Rejected, SinkError, Sourced, SourcedFrame, SourcedRecords, highest_offsets
from astrocyte.agents.sinks.influx.points import PointRules, points_of, refused_rows
from astrocyte.agents.sinks.retry import RetryPolicy

__all__ = ["InfluxFileSink"]

_MARK: Final = b"# positions "
_NAME: Final = re.compile(r"points-(\d{6,})\.lp\.gz")
_BLOCK: Final = 1 << 16
_TRANSIENT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.ENFILE, errno.EMFILE})


class InfluxFileSink:
    """Compressed line protocol in ``folder``; a new file begins after ``rotate_bytes`` (compressed)."""

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = "influx",
        rotate_bytes: int = 64 << 20,
        rules: PointRules | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self.folder = Path(folder)
        self._rotate_bytes = rotate_bytes
        self._rules = rules or PointRules()
        self._retry = retry or RetryPolicy(name)
        self._positions: dict[tuple[str, int], int] = {}
        self._number = 1
        self._opened = False
        self._file: BinaryIO | None = None
        """The current file; created with its first member, because an empty file is not a gzip file."""
        self._end = 0
        """Confirmed length of the current file, in bytes."""
        self.written = 0
        """Points written since the sink was opened."""

    async def open(self) -> None:
        """Read the stored positions, and remove an incomplete member. Raises SinkError."""
        await asyncio.to_thread(self._open)

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Append the points that are not stored yet, as one member; returns when they are on disk."""
        if not self._opened:
            raise SinkError(f"write() was called before sink {self.name!r} was opened; await open() first")
        reached = self._positions | {
            place: max(following, self._positions.get(place, 0)) for place, following in highest_offsets(batch).items()
        }
        payload, lines = await asyncio.to_thread(self._encode, self._fresh(batch))
        if lines:
            mark = _MARK + orjson.dumps([[*place, following] for place, following in sorted(reached.items())]) + b"\n"
            member = await asyncio.to_thread(_compressed, mark + payload)
            await self._retry.persist(lambda: asyncio.to_thread(self._append, member), self._transient)
        self._positions = reached
        self.written += lines
        # Of the whole batch, not only of new rows: a crash may have prevented the dead letter of a refused row.
        return refused_rows(batch, self._rules)

    async def close(self) -> None:
        """Close the file."""
        self._opened = False
        if self._file is not None:
            self._file.close()
            self._file = None
            if self._end == 0:
                self._path().unlink()

    def _encode(self, batch: Sequence[Sourced]) -> tuple[bytes, int]:
        found = list(points_of(batch, self._rules))
        return b"".join(points.lines.payload() for points in found), sum(len(points.lines) for points in found)

    def _fresh(self, batch: Sequence[Sourced]) -> list[Sourced]:
        """The rows that the files do not hold yet."""
        return [item for item in (self._fresh_part(item) for item in batch) if item is not None]

    def _fresh_part(self, item: Sourced) -> Sourced | None:
        known = self._positions.get((item.topic, item.partition), 0)
        if isinstance(item, SourcedFrame) and item.offsets is None:
            return item if item.offset >= known else None
        count = item.frame.num_rows if isinstance(item, SourcedFrame) else len(item.records)
        offsets = np.array([item.offset_of(row) for row in range(count)], np.int64)
        rows = np.flatnonzero(offsets >= known)
        if len(rows) == count:
            return item
        if not len(rows):
            return None
        place = (item.topic, item.partition, int(offsets[rows[0]]), offsets[rows], item.last_offset)
        if isinstance(item, SourcedFrame):
            return SourcedFrame(item.frame.take(rows), *place)
        return SourcedRecords(item.kind, [item.records[row] for row in rows.tolist()], *place)

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            numbers = sorted(int(match[1]) for match in self._names() if match)
            self._positions.clear()
            for number in numbers[-2:]:
                # The newest file may have no complete member; the positions are then in the file before it.
                self._number = number
                self._end = self._read_positions()
            if numbers and self._end:
                self._begin(self._end)
            elif numbers:
                self._path().unlink()
            self._opened = True
        except OSError as error:
            raise SinkError(f"the folder {self.folder} of sink {self.name!r} cannot be used: {error}") from error

    def _names(self) -> Iterator[re.Match[str] | None]:
        return (_NAME.fullmatch(path.name) for path in self.folder.iterdir())

    def _path(self) -> Path:
        return self.folder / f"points-{self._number:06d}.lp.gz"

    def _begin(self, end: int) -> BinaryIO:
        """Continue the current file after its first ``end`` bytes; its directory entry is synced before its content."""
        file = self._file = self._path().open("ab", buffering=0)
        file.truncate(end)
        self._end = end
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def _read_positions(self) -> int:
        """Read the positions of the current file; returns the end offset of its last complete member."""
        whole = 0
        with self._path().open("rb") as file:
            for end, mark in _members(file):
                whole = end
                if mark.startswith(_MARK):
                    for topic, partition, following in orjson.loads(mark.removeprefix(_MARK)):
                        self._positions[topic, partition] = max(following, self._positions.get((topic, partition), 0))
        return whole

    def _append(self, member: bytes) -> None:
        file = self._file or self._begin(0)
        try:
            file.truncate(self._end)
            data = memoryview(member)
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            # The next attempt starts where the last confirmed member ends.
            file.truncate(self._end)
            raise
        self._end += len(member)
        if self._end >= self._rotate_bytes:
            file.close()
            self._file, self._end = None, 0
            self._number += 1

    def _transient(self, error: Exception) -> str | None:
        if isinstance(error, OSError) and error.errno in _TRANSIENT:
            return f"{self._path()}: {error.strerror}"
        return None


def _compressed(text: bytes) -> bytes:
    """One gzip member; level 1 is seven times as fast as level 6 for a sixth more bytes."""
    return bytes(cramjam.gzip.compress(text, 1))


def _members(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """End offset and first line of each complete gzip member, in bounded memory; stops at the first incomplete one."""
    at = 0
    rest = b""
    while True:
        inflate = zlib.decompressobj(wbits=31)
        line = b""
        used = 0
        while not inflate.eof:
            data = rest or file.read(_BLOCK)
            if not data:
                return
            try:
                text = inflate.decompress(data)
            except zlib.error:
                return
            if b"\n" not in line:
                line = (line + text).partition(b"\n")[0] + (b"\n" if b"\n" in text else b"")
            rest = b""
            used += len(data) - len(inflate.unused_data)
        rest = inflate.unused_data
        at += used
        yield at, line.rstrip(b"\n")
