"""The index of a segment: the byte at which to start reading for an offset or a time, in memory and as a file.

The file states how many bytes of the segment it covers and is written only after they were synced to disk. At the next
start the broker trusts that prefix and scans only the rest. If the file is missing or damaged, the scan takes longer.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from crc32c import crc32c

from astrocyte.pipeline.broker.storage.disk import sync_file

__all__ = ["INDEX_INTERVAL", "IndexFile", "SegmentIndex"]

INDEX_INTERVAL = 8192  # bytes of batches between two entries

_MAGIC = b"ASTROIX1"
_HEAD = struct.Struct("<8sqqqqI?ii")
_CRC = struct.Struct("<I")


class SegmentIndex:
    """Sparse entries in log order: a batch's base offset, its position, the newest timestamp before it."""

    __slots__ = ("newest_before", "offsets", "positions")

    def __init__(self) -> None:
        self.offsets, self.positions, self.newest_before = array("q"), array("q"), array("q")

    def note(self, base_offset: int, position: int, newest_before: int) -> None:
        """Add an entry for a batch if it is at least INDEX_INTERVAL bytes after the last entry."""
        if not self.positions or position - self.positions[-1] >= INDEX_INTERVAL:
            self.offsets.append(base_offset)
            self.positions.append(position)
            self.newest_before.append(newest_before)

    def position_of(self, offset: int) -> int:
        """A batch boundary at or before the batch that holds an offset."""
        entry = bisect_right(self.offsets, offset) - 1
        return self.positions[entry] if entry >= 0 else 0

    def position_of_time(self, timestamp: int) -> int:
        """A batch boundary at or before the first batch that reaches a timestamp; ``newest_before`` never decreases."""
        entry = bisect_left(self.newest_before, timestamp) - 1
        return self.positions[entry] if entry >= 0 else 0


@dataclass(slots=True)
class IndexFile:
    """Content of a segment's ``.index`` file, about the first ``covered`` bytes of its log file.

    ``file_crc`` is the checksum of those bytes in a compacted segment: its offsets have gaps, so contiguous offsets
    cannot verify the fields outside the batches' own checksums.
    """

    covered: int
    next_offset: int
    max_timestamp: int
    appended_ms: int
    compacted: bool = False
    file_crc: int = 0
    producers: bytes = b""
    index: SegmentIndex = field(default_factory=SegmentIndex)

    def write(self, path: Path) -> None:
        """Write the file atomically; it is synced before the rename."""
        arrays = (self.index.offsets, self.index.positions, self.index.newest_before)
        head = _HEAD.pack(
            _MAGIC,
            self.covered,
            self.next_offset,
            self.max_timestamp,
            self.appended_ms,
            self.file_crc,
            self.compacted,
            len(arrays[0]),
            len(self.producers),
        )
        content = head + b"".join(a.tobytes() for a in arrays) + self.producers
        draft = path.with_suffix(".index.new")
        try:
            with draft.open("wb") as file:
                file.write(content + _CRC.pack(crc32c(content)))
                file.flush()
                sync_file(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> IndexFile | None:
        """The file's content; None if it is missing or damaged."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if len(content) < _HEAD.size + _CRC.size or content[:8] != _MAGIC:
            return None
        body = memoryview(content)[: -_CRC.size]
        if crc32c(body) != _CRC.unpack(content[-_CRC.size :])[0]:
            return None
        _, covered, next_offset, max_timestamp, appended_ms, file_crc, compacted, entries, producers = (
            _HEAD.unpack_from(body)
        )
        index, at = SegmentIndex(), _HEAD.size
        for column in (index.offsets, index.positions, index.newest_before):
            column.frombytes(body[at : at + 8 * entries])
            at += 8 * entries
        return cls(
            covered,
            next_offset,
            max_timestamp,
            appended_ms,
            compacted,
            file_crc,
            bytes(body[at : at + producers]),
            index,
        )
