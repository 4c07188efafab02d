"""Line protocol in compressed files, for pipelines without InfluxDB; ``influx write --compression gzip`` loads them.

Files are named ``points-000001.lp.gz`` and up. Each batch is two gzip members, flushed to the disk before the write is
confirmed: a comment line with the offsets of the batch, and its points. `agents.sinks.blocks` says how several
processes share the folder, and how a point that was written before is recognised.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import cramjam
import numpy as np

from astrocyte.agents.sinks.base import Rejected, Sourced, SourcedRecords
from astrocyte.agents.sinks.block_marks import Rows
from astrocyte.agents.sinks.blocks import BlockFolder, Head
from astrocyte.agents.sinks.influx.points import PointBatch, PointRules, Points, points_of
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.topics import TopicPartition

__all__ = ["OFFSETS", "InfluxFileSink"]

OFFSETS: Final = b"# offsets "
"""Start of the comment line of a block; the offsets of its batch follow."""
_LENGTHS: Final = struct.Struct("<IQ")
"""Lengths of head and points, in an extra field of the head's gzip header (RFC 1952), which readers pass over."""
_EXTRA: Final = b"AS" + struct.pack("<H", _LENGTHS.size)
_HEAD: Final = 12 + len(_EXTRA) + _LENGTHS.size


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
        self._files = BlockFolder(self.folder, _Gzip(), sink=name, rotate_bytes=rotate_bytes)
        self._rules = rules or PointRules()
        self._retry = retry or RetryPolicy(name)
        self.written = 0
        """Points written since the sink was opened."""

    async def open(self) -> None:
        """Read the offsets of all batches, and cut an incomplete one of a process that ended. Raises SinkError."""
        await asyncio.to_thread(self._files.open)

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Append the points that are not stored yet; returns when they are on disk."""
        found, rows = await asyncio.to_thread(self._read, batch)
        self.written += await self._retry.persist(
            lambda: asyncio.to_thread(self._files.append, rows), self._files.retriable
        )
        # Of the whole batch, not only of new rows: a crash may have prevented the dead letter of a refused row.
        return found.refused

    async def close(self) -> None:
        """Close the file."""
        self._files.close()

    def _read(self, batch: Sequence[Sourced]) -> tuple[PointBatch, list[Rows]]:
        found = points_of(batch, self._rules)
        return found, [_rows_of(points) for points in found.points]


def _rows_of(points: Points) -> Rows:
    item, rows = points.item, points.lines.rows
    if item.offsets is not None:
        offsets = item.offsets[rows]
    else:
        offsets = item.offset + rows if isinstance(item, SourcedRecords) else np.full(len(rows), item.offset)
    return Rows(TopicPartition(item.topic, item.partition), offsets, points.lines.split())


class _Gzip:
    """Blocks of two gzip members."""

    prefix = "points"
    suffix = ".lp.gz"
    magic = b"\x1f\x8b\x08\x04"

    def pack(self, mark: bytes, text: bytes) -> bytes:
        """A head, and the points; level 1 is seven times as fast as level 6 for a sixth more bytes."""
        line = OFFSETS + mark + b"\n"
        deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        data = deflate.compress(line) + deflate.flush()
        body = bytes(cramjam.gzip.compress(text, 1))
        lengths = _LENGTHS.pack(_HEAD + len(data) + 8, len(body))
        start = self.magic + bytes(5) + b"\xff" + struct.pack("<H", len(_EXTRA) + len(lengths)) + _EXTRA + lengths
        return start + data + struct.pack("<II", zlib.crc32(line), len(line)) + body

    def head(self, file: BinaryIO) -> Head | None:
        """The head at the file's position; None where it is incomplete. Raises ValueError where there is none."""
        data = file.read(_HEAD)
        if not data.strip(b"\0"):
            return None
        if data[: len(self.magic)] != self.magic[: len(data)]:
            raise ValueError("not a block")
        if len(data) < _HEAD:
            return None
        if data[12 : 12 + len(_EXTRA)] != _EXTRA:
            raise ValueError("not a block")
        head_bytes, body_bytes = _LENGTHS.unpack(data[-_LENGTHS.size :])
        data += file.read(head_bytes - len(data))
        if len(data) < head_bytes:
            return None
        try:
            line = zlib.decompress(data, wbits=31)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        return Head(head_bytes, body_bytes, line.removeprefix(OFFSETS))

    def unpack(self, body: bytes) -> bytes:
        """Points of a block. Raises ValueError if they are damaged."""
        try:
            return zlib.decompress(body, wbits=31)
        except zlib.error as error:
            raise ValueError(str(error)) from error

    def identity(self, line: bytes) -> int:
        """A line holds all that makes the point: measurement, tags, fields and time."""
        return hash(line)
