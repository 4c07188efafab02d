"""Compaction of a log with cleanup.policy=compact: closed segments are rewritten with the newest record of each key.

Reading and rewriting run on another thread, on files that no longer change; only the swap runs on the event loop's
thread. A swap replaces first the index file, then the log file, and then removes the files that were merged. A crash
at any point leaves the old segments, or the new one with leftovers that its index file identifies.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crc32c import crc32c

from astrocyte.pipeline.broker.protocol.batch import (
    CONTROL,
    BatchHeader,
    Record,
    read_header,
    records_of,
    with_records,
)
from astrocyte.pipeline.broker.storage.disk import sync_file, sync_folder
from astrocyte.pipeline.broker.storage.index import IndexFile
from astrocyte.pipeline.broker.storage.log import PartitionLog
from astrocyte.pipeline.broker.storage.segment import Segment

__all__ = ["CleanedSegment", "clean", "compactable", "swap"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class CleanedSegment:
    """A rewritten file, and the neighbouring segments that it replaces."""

    sources: list[Segment]
    draft: Path
    describes: IndexFile


def compactable(log: PartitionLog) -> list[Segment]:
    """The segments to compact now: all sealed ones, if enough of their bytes are not yet compacted; else none."""
    sealed: list[Segment] = []
    for segment in log.segments[:-1]:
        if not segment.sealed:
            break
        sealed.append(segment)
    total = sum(segment.size for segment in sealed)
    new = sum(segment.size for segment in sealed if not segment.compacted)
    return sealed if new and new >= total * log.config.min_cleanable_dirty_ratio else []


def clean(sources: list[Segment], *, now_ms: int, delete_retention_ms: int, segment_bytes: int) -> list[CleanedSegment]:
    """Rewrite segments; small neighbours are merged. Thread-safe: it opens the files itself.

    A tombstone (a record without value) is removed once its timestamp is older than ``delete_retention_ms`` and an
    earlier compaction has kept it. The very last record is always kept, so that readers can reach the log's end.
    """
    newest: dict[bytes, int] = {}
    last_offset = -1
    for source in sources:
        for header, batch in _batches(source):
            last_offset = header.next_offset - 1
            for record in _records(header, batch) or ():
                if record.key is not None:
                    newest[record.key] = record.offset
    tombstones_before = now_ms - delete_retention_ms
    writer: _Writer | None = None
    writers: list[_Writer] = []
    try:
        for source in sources:
            if writer is None or writer.size + source.size > segment_bytes:
                writer = _Writer(source)
                writers.append(writer)
            writer.begin(source)
            for header, batch in _batches(source):
                records = _records(header, batch)
                if records is None:
                    writer.write(header, batch)
                    continue
                kept = [
                    record
                    for record in records
                    if record.offset == last_offset
                    or record.key is None
                    or (
                        newest[record.key] == record.offset
                        and (record.value is not None or not source.compacted or record.timestamp >= tombstones_before)
                    )
                ]
                if len(kept) == len(records):
                    writer.write(header, batch)
                elif kept:
                    rewritten = with_records(header, kept)
                    writer.write(read_header(rewritten), rewritten)
        return [each.finish() for each in writers]
    except BaseException:
        for each in writers:
            each.abandon()
        raise


def swap(log: PartitionLog, cleaned: list[CleanedSegment]) -> int:
    """Replace the sources by the rewritten segments, on the thread that owns the log; returns the bytes saved.

    If a source has expired or the log was closed meanwhile, the rewritten file is discarded.
    """
    saved = 0
    for each in cleaned:
        if log.closed or any(segment not in log.segments for segment in each.sources):
            each.draft.unlink(missing_ok=True)
            continue
        first = each.sources[0]
        segment = Segment(log.directory, first.base_offset, log.pool)
        for source in each.sources:
            source.release()
        each.describes.write(segment.index_path)
        each.draft.replace(segment.path)
        sync_folder(log.directory)
        segment.adopt(each.describes)
        segment.sealed = True
        saved += sum(source.size for source in each.sources) - segment.size
        log.replace(each.sources, segment)
        for source in each.sources[1:]:
            source.path.unlink(missing_ok=True)
            source.index_path.unlink(missing_ok=True)
    return saved


class _Writer:
    """Writes one rewritten file and its index."""

    def __init__(self, first: Segment) -> None:
        self.sources: list[Segment] = []
        self.draft = first.path.with_suffix(".log.new")
        self.file = self.draft.open("wb")
        self.crc = self.size = 0
        self.describes = IndexFile(0, first.base_offset, -1, 0, compacted=True)

    def begin(self, source: Segment) -> None:
        self.sources.append(source)
        describes = self.describes
        describes.next_offset = source.next_offset
        describes.appended_ms = max(describes.appended_ms, source.appended_ms)
        stored = IndexFile.load(source.index_path)
        describes.producers = stored.producers if stored is not None else b""

    def write(self, header: BatchHeader, batch: bytes) -> None:
        self.describes.index.note(header.base_offset, self.size, self.describes.max_timestamp)
        self.describes.max_timestamp = max(self.describes.max_timestamp, header.max_timestamp)
        self.file.write(batch)
        self.crc = crc32c(batch, self.crc)
        self.size += len(batch)

    def finish(self) -> CleanedSegment:
        self.file.flush()
        sync_file(self.file.fileno())
        self.file.close()
        self.describes.covered, self.describes.file_crc = self.size, self.crc
        return CleanedSegment(self.sources, self.draft, self.describes)

    def abandon(self) -> None:
        self.file.close()
        self.draft.unlink(missing_ok=True)


def _batches(segment: Segment) -> Iterator[tuple[BatchHeader, bytes]]:
    if not segment.size:
        return
    with segment.path.open("rb") as file, mmap.mmap(file.fileno(), segment.size, access=mmap.ACCESS_READ) as content:
        at = 0
        while at < segment.size:
            header = read_header(content, at)
            if not header.plausible:
                raise ValueError(f"{segment.path}: no record batch at byte {at}")
            yield header, content[at : at + header.size]
            at += header.size


def _records(header: BatchHeader, batch: bytes) -> list[Record] | None:
    """The batch's records; None where they cannot be decoded, so that the batch is kept unchanged."""
    if header.attributes & CONTROL:
        return None
    try:
        return list(records_of(header, batch))
    except ValueError as error:
        logger.warning("batch kept unchanged at compaction: %s", error)
        return None
