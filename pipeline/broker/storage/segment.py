"""One file of a partition's log: consecutive batches, appended, read by offset, searched by time.

File descriptors are scarce (macOS allows 256 by default), partitions many: a segment opens its file when it is used,
and the pool closes the least recently used ones. A sealed segment's index is dropped with its descriptor and read
again from its file.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from astrocyte.pipeline.broker.protocol.batch import HEADER_BYTES, BatchHeader, read_header, records_of
from astrocyte.pipeline.broker.storage.index import INDEX_INTERVAL, IndexFile, SegmentIndex

__all__ = ["DamagedSegment", "Segment", "SegmentPool"]

_PEEK = struct.Struct(">qiib6xi")  # base offset, length, leader epoch, magic, ..., last offset delta


class DamagedSegment(Exception):
    """Bytes inside a segment that are not a batch, found while reading."""


class SegmentPool:
    """Keeps at most ``limit`` segments open; used by one thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: OrderedDict[Segment, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def touch(self, segment: Segment) -> None:
        """Record a use of an open segment; beyond the limit the least recently used one is closed."""
        self._open[segment] = None
        self._open.move_to_end(segment)
        if len(self._open) > self.limit:
            unused, _ = self._open.popitem(last=False)
            unused.release()

    def forget(self, segment: Segment) -> None:
        """Remove a segment that was closed."""
        self._open.pop(segment, None)


class Segment:
    """A log file named by its first offset; sizes are bytes, timestamps and ``appended_ms`` milliseconds.

    ``next_offset`` is the offset after its last record, including records removed since. ``sealed``: the segment is
    closed, on disk, and described by its index file.
    """

    __slots__ = (
        "_fd",
        "_index",
        "appended_ms",
        "base_offset",
        "compacted",
        "max_timestamp",
        "next_offset",
        "path",
        "pool",
        "sealed",
        "size",
    )

    def __init__(self, directory: Path, base_offset: int, pool: SegmentPool) -> None:
        self.base_offset = self.next_offset = base_offset
        self.path, self.pool = directory / f"{base_offset:020d}.log", pool
        self.size, self.max_timestamp, self.appended_ms = 0, -1, 0
        self.compacted = self.sealed = False
        self._fd: int | None = None
        self._index: SegmentIndex | None = SegmentIndex()

    @property
    def index_path(self) -> Path:
        """Path of its index file, whether or not it exists."""
        return self.path.with_suffix(".index")

    @property
    def index(self) -> SegmentIndex:
        """The index, read back from its file if it was dropped."""
        if self._index is None:
            stored = IndexFile.load(self.index_path)
            if stored is not None and stored.covered == self.size:
                self._index = stored.index
            else:
                self._index = self._scanned_index()
        return self._index

    def fileno(self) -> int:
        """The open file's descriptor, valid until the pool opens another segment."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.pool.touch(self)
        return self._fd

    def release(self) -> None:
        """Close the file and drop what can be read again; a later use opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self.pool.forget(self)
        if self.sealed:
            self._index = None

    def adopt(self, stored: IndexFile) -> None:
        """Take over the content of an index file."""
        self.size, self.next_offset, self.max_timestamp = stored.covered, stored.next_offset, stored.max_timestamp
        self.appended_ms, self.compacted, self._index = stored.appended_ms, stored.compacted, stored.index

    def describe(self, producers: bytes) -> IndexFile:
        """The index file for the current state."""
        return IndexFile(
            self.size,
            self.next_offset,
            self.max_timestamp,
            self.appended_ms,
            self.compacted,
            producers=producers,
            index=self.index,
        )

    def note(self, header: BatchHeader, position: int) -> None:
        """Add a batch at a position of the file to the index and the totals."""
        self.index.note(header.base_offset, position, self.max_timestamp)
        self.next_offset = header.next_offset
        self.max_timestamp = max(self.max_timestamp, header.max_timestamp)
        self.size = position + header.size

    def append(self, batch: memoryview, header: BatchHeader, now_ms: int) -> None:
        """Write a batch at the end. OSError (a full disk) leaves the segment unchanged."""
        fd, written = self.fileno(), 0
        try:
            while written < len(batch):
                written += os.pwrite(fd, batch[written:], self.size + written)
        except OSError:
            with suppress(OSError):  # the bytes written are beyond the segment's size and will be overwritten
                os.ftruncate(fd, self.size)
            raise
        self.note(header, self.size)
        self.appended_ms = max(self.appended_ms, now_ms)

    def read(self, offset: int, max_bytes: int, *, end: int) -> memoryview:
        """Batches from the one that holds an offset, or the first after it; empty if there is none before byte ``end``.

        ``end`` is the end of a batch. Returns about ``max_bytes``; the last batch may be truncated, the first is always
        complete (KIP-74).
        """
        position = self.index.position_of(offset)
        fd = self.fileno()
        chunk = max(max_bytes, HEADER_BYTES) + INDEX_INTERVAL
        while position < end:
            data = memoryview(os.pread(fd, min(chunk, end - position), position))
            at = 0
            while at + HEADER_BYTES <= len(data):
                base_offset, length, leader_epoch, magic, last_delta = _PEEK.unpack_from(data, at)
                if magic != 2 or leader_epoch != 0 or length < HEADER_BYTES - 12 or last_delta < 0:
                    raise DamagedSegment(f"{self.path}: no record batch at byte {position + at}")
                if base_offset + last_delta >= offset:
                    wanted = max(12 + length, max_bytes)
                    if at + 12 + length > len(data):
                        data, at = memoryview(os.pread(fd, min(wanted, end - position - at), position + at)), 0
                    return data[at : at + wanted]
                at += 12 + length
            if at == 0:
                raise DamagedSegment(f"{self.path}: ends inside a header at byte {position}")
            position += at
        return memoryview(b"")

    def offset_for_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record at or after a time; None if the segment does not reach it."""
        if self.max_timestamp < timestamp:
            return None
        position, fd = self.index.position_of_time(timestamp), self.fileno()
        while position < self.size:
            head = os.pread(fd, HEADER_BYTES, position)
            if len(head) < HEADER_BYTES or not (header := read_header(head)).plausible:
                raise DamagedSegment(f"{self.path}: no record batch at byte {position}")
            if header.max_timestamp >= timestamp:
                batch = os.pread(fd, header.size, position)
                try:
                    for record in records_of(header, batch):
                        if record.timestamp >= timestamp:
                            return record.offset, record.timestamp
                except ValueError:  # not decodable: the batch's start is never after the record sought
                    return header.base_offset, header.base_timestamp
            position += header.size
        return None

    def _scanned_index(self) -> SegmentIndex:
        index, position, newest, fd = SegmentIndex(), 0, -1, self.fileno()
        while position + HEADER_BYTES <= self.size:
            header = read_header(os.pread(fd, HEADER_BYTES, position))
            if not header.plausible:
                break
            index.note(header.base_offset, position, newest)
            newest = max(newest, header.max_timestamp)
            position += header.size
        return index
