"""A partition's log: segments in offset order, the last one open for appending.

An append is in the kernel's page cache, which survives a kill -9 of the broker, and on disk after the next flush. With
``stable_reads`` only what is on disk can be read, so that no reader has seen a record that a power failure removes.
Everything here runs on the event loop's thread, except FlushJob.run.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from astrocyte.pipeline.broker.protocol.batch import refuse_unless_appendable, refuse_without_keys, stamp_offset
from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.storage.disk import sync_file, sync_folder
from astrocyte.pipeline.broker.storage.index import IndexFile
from astrocyte.pipeline.broker.storage.producers import ProducerTable
from astrocyte.pipeline.broker.storage.recovery import compacted_reach, recover_segment
from astrocyte.pipeline.broker.storage.segment import DamagedSegment, Segment, SegmentPool

__all__ = ["FlushJob", "LogConfig", "PartitionLog"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Rolling, retention and compaction of a log: the topic configurations of the same names."""

    segment_bytes: int
    segment_ms: int
    retention_ms: int
    retention_bytes: int
    max_message_bytes: int
    deleted: bool  # cleanup.policy contains delete
    compacted: bool  # cleanup.policy contains compact
    delete_retention_ms: int
    min_cleanable_dirty_ratio: float


@dataclass(slots=True)
class FlushJob:
    """The sync of one segment's file; ``run`` may be called on another thread, ``fd`` is its own descriptor."""

    segment: Segment
    fd: int
    describes: IndexFile | None  # written once the bytes that it describes are on disk
    folders: tuple[Path, ...] = ()  # that have a name which may not be on disk yet

    def run(self) -> None:
        """Sync. Raises OSError if that fails."""
        try:
            sync_file(self.fd)
            for folder in self.folders:
                sync_folder(folder)
            if self.describes is not None:
                self.describes.write(self.segment.index_path)
        finally:
            os.close(self.fd)


class _End(NamedTuple):
    """An end of the log: the next offset, and the first offset of the last segment with its size then."""

    offset: int
    segment: int
    size: int


class Appended(NamedTuple):
    """Position of a batch in the log; ``repeated`` if it was already stored."""

    base_offset: int
    repeated: bool


class PartitionLog:
    """One partition of a topic, in a folder of its own."""

    def __init__(
        self,
        directory: Path,
        config: LogConfig,
        pool: SegmentPool,
        now_ms: Callable[[], int],
        verify: Literal["tail", "all"] = "tail",
        *,
        stable_reads: bool = False,
    ) -> None:
        self.directory, self.config, self.pool, self.now_ms = directory, config, pool, now_ms
        self.stable_reads = stable_reads
        self.sync_error: OSError | None = None
        """Why the last flush failed, until one succeeds."""
        self.producers = ProducerTable()
        self.closed = False
        self.dirty = False
        self.cut_bytes = 0
        self._unsealed: list[tuple[Segment, bytes]] = []  # closed segments, with a snapshot of the producers then
        self._listeners: dict[Callable[[int], None], None] = {}  # in the order in which they came
        directory.mkdir(parents=True, exist_ok=True)
        self.segments = self._recover(verify)
        self._bases = [segment.base_offset for segment in self.segments]
        self._opened_ms = self.segments[-1].appended_ms if self.segments[-1].size else 0
        self.dirty = stable_reads  # what a crash left may be in the page cache only
        self._named, self._naming = False, -1
        self._unflushed_bytes = self._flushing_bytes = 0
        self._stable = _End(self.start_offset, self.start_offset, 0)
        self._flushing: _End | None = None

    @property
    def start_offset(self) -> int:
        """The oldest offset that can be read."""
        return self._bases[0]

    @property
    def end_offset(self) -> int:
        """The offset that the next record gets (the high watermark)."""
        return self.segments[-1].next_offset

    @property
    def stable_offset(self) -> int:
        """The offset after the last record that can be read; with ``stable_reads`` all before it are on disk."""
        return max(self._stable.offset, self.start_offset) if self.stable_reads else self.end_offset

    @property
    def size_bytes(self) -> int:
        """Size of all segments in bytes."""
        return sum(segment.size for segment in self.segments)

    def append(self, batch: memoryview) -> Appended:
        """Store one batch from a producer; its offset is written into its bytes in place.

        Raises RequestRefused, with nothing stored, if the batch is invalid, out of its producer's sequence, or the disk
        is full.
        """
        header = refuse_unless_appendable(batch, self.config.max_message_bytes)
        if self.config.compacted:
            refuse_without_keys(header, batch)
        if header.producer_id >= 0:
            repeated = self.producers.offset_of_repetition(header)
            if repeated is not None:
                return Appended(repeated, repeated=True)
        try:
            active = self.segments[-1]
            if active.size and active.size + len(batch) > self.config.segment_bytes:
                active = self.roll()
            header = stamp_offset(batch, header, active.next_offset)
            now_ms = self.now_ms()
            if not active.size:
                self._opened_ms = now_ms
            active.append(batch, header, now_ms)
        except OSError as error:
            raise RequestRefused(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {error.strerror}") from error
        self.producers.note(header)
        self.dirty = True
        self._unflushed_bytes += len(batch)
        if not self.stable_reads:
            self._notify(len(batch))
        return Appended(header.base_offset, repeated=False)

    def read(self, offset: int, max_bytes: int) -> memoryview:
        """Batches from an offset on, see Segment.read. Raises RequestRefused if the log has no such offset."""
        if self.stable_offset <= offset <= self.end_offset:
            return memoryview(b"")
        if not self.start_offset <= offset < self.end_offset:
            raise RequestRefused(ErrorCode.OFFSET_OUT_OF_RANGE)
        first = bisect_right(self._bases, offset) - 1
        try:
            for segment in self.segments[first:]:  # more than one only after a gap from compaction or damage
                found = segment.read(offset, max_bytes, end=self._readable_bytes(segment))
                if found:
                    return found
        except DamagedSegment as damage:
            logger.error("%s; restart the broker with verify=all to move the damaged bytes to a file", damage)
            raise RequestRefused(ErrorCode.CORRUPT_MESSAGE, str(damage)) from damage
        except OSError as error:
            raise RequestRefused(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {error.strerror}") from error
        return memoryview(b"")

    def offset_for_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record at or after a time in milliseconds; None if there is none."""
        try:
            for segment in self.segments:
                found = segment.offset_for_timestamp(timestamp)
                if found is not None:
                    return found
        except (DamagedSegment, OSError) as error:
            raise RequestRefused(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
        return None

    def listen(self, listener: Callable[[int], None]) -> None:
        """Call a function with the size of what can be read in addition, and with 0 at close and if a flush failed."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[int], None]) -> None:
        """End ``listen``."""
        self._listeners.pop(listener, None)

    def roll(self) -> Segment:
        """Close the open segment and begin a new one at the end offset. OSError leaves the log unchanged."""
        opened = Segment(self.directory, self.end_offset, self.pool)
        opened.fileno()
        self._unsealed.append((self.segments[-1], self.producers.snapshot()))
        self._named = False
        self.segments.append(opened)
        self._bases.append(opened.base_offset)
        return opened

    def roll_if_aged(self) -> None:
        """Close the open segment when it is older than segment.ms, so that an idle log can be cleaned too."""
        if self.segments[-1].size and self.now_ms() - self._opened_ms >= self.config.segment_ms:
            self.roll()

    def expire(self) -> list[Path]:
        """Remove the segments beyond the retention time or size; returns the removed log files.

        A segment expires when both its records' timestamps and its last append are old enough. Records of a replayed
        old recording or of a simulated clock are therefore not removed as soon as they arrive.
        """
        removed: list[Path] = []
        total, now_ms, config = self.size_bytes, self.now_ms(), self.config
        while config.deleted:
            oldest = self.segments[0]
            newest_ms = max(oldest.max_timestamp, oldest.appended_ms)
            aged = (oldest.size > 0 or len(self.segments) > 1) and 0 <= config.retention_ms < now_ms - newest_ms
            if not aged and not 0 <= config.retention_bytes <= total - oldest.size:
                break
            if len(self.segments) == 1:
                if not aged:
                    break
                self.roll()
            total -= oldest.size
            removed.append(self._drop_oldest())
        return removed

    def begin_flush(self) -> list[FlushJob]:
        """Sync jobs that are due; run them on any thread, then pass them to ``end_flush``."""
        if not self.dirty and not self._unsealed:
            return []  # as most logs in most rounds
        jobs: list[FlushJob] = []
        active = self.segments[-1]
        self._flushing = _End(self.end_offset, active.base_offset, active.size)
        self._flushing_bytes, self._unflushed_bytes = self._flushing_bytes + self._unflushed_bytes, 0
        folders = () if self._named else (self.directory, *self.directory.parents[:2])
        self._naming = -1
        try:
            if self.dirty:
                self._naming = active.base_offset
                jobs.append(FlushJob(active, os.dup(active.fileno()), None, folders))
                self.dirty = False
            jobs.extend(
                FlushJob(segment, os.dup(segment.fileno()), segment.describe(producers))
                for segment, producers in self._unsealed
            )
        except OSError as error:  # out of descriptors: the next round retries
            logger.warning("%s: cannot sync now: %s", self.directory, error.strerror)
            self.dirty, self._flushing = True, None
        return jobs

    def end_flush(self, synced: list[FlushJob], failed: list[FlushJob], error: OSError | None = None) -> None:
        """Record which jobs of ``begin_flush`` succeeded; the others, which ``error`` ended, are due again."""
        sealed = {job.segment for job in synced if job.describes is not None}
        for segment in sealed:
            segment.sealed = True
            if segment not in self.segments:  # it expired meanwhile
                segment.index_path.unlink(missing_ok=True)
        self._unsealed = [entry for entry in self._unsealed if entry[0] not in sealed]
        if failed or self._flushing is None:
            self.dirty, self.sync_error = True, error
            if self.stable_reads:
                self._notify(0)
            return
        self._stable, self.sync_error = self._flushing, None
        self._named = self._named or self._naming == self.segments[-1].base_offset
        flushed, self._flushing_bytes = self._flushing_bytes, 0
        if self.stable_reads and flushed:
            self._notify(flushed)

    def replace(self, sources: list[Segment], cleaned: Segment) -> None:
        """Replace neighbouring segments by their compacted one; the caller removes their files."""
        first = self.segments.index(sources[0])
        self.segments[first : first + len(sources)] = [cleaned]
        self._bases = [segment.base_offset for segment in self.segments]

    def close(self, *, seal: bool = True) -> None:
        """Sync, describe and release every segment, so that the next start need not scan them."""
        self.closed = True
        self._notify(0)
        if seal:
            self._unsealed.append((self.segments[-1], self.producers.snapshot()))
            for job in self.begin_flush():
                try:
                    job.run()
                except OSError as error:
                    logger.warning("%s: not synced at close: %s", job.segment.path, error.strerror)
        for segment in self.segments:
            segment.release()

    def _notify(self, size: int) -> None:
        for listener in tuple(self._listeners):
            listener(size)

    def _readable_bytes(self, segment: Segment) -> int:
        if not self.stable_reads or segment.base_offset < self._stable.segment:
            return segment.size
        return self._stable.size if segment.base_offset == self._stable.segment else 0

    def _drop_oldest(self) -> Path:
        segment = self.segments.pop(0)
        self._bases.pop(0)
        self._unsealed = [entry for entry in self._unsealed if entry[0] is not segment]
        segment.release()
        segment.path.unlink(missing_ok=True)
        segment.index_path.unlink(missing_ok=True)
        return segment.path

    def _recover(self, verify: Literal["tail", "all"]) -> list[Segment]:
        for unfinished in (*self.directory.glob("*.new"),):
            unfinished.unlink()
        bases = sorted(int(path.stem) for path in self.directory.glob("*.log") if path.stem.isdigit()) or [0]
        segments: list[Segment] = []
        while bases:
            segment = Segment(self.directory, bases.pop(0), self.pool)
            segments.append(segment)
            reaches = compacted_reach(segment)
            while bases and bases[0] < reaches:
                leftover = self.directory / f"{bases.pop(0):020d}.log"  # merged into this segment before a crash
                leftover.unlink()
                leftover.with_suffix(".index").unlink(missing_ok=True)
            self.cut_bytes += recover_segment(
                segment,
                self.producers,
                ends_at=bases[0] if bases else None,
                contiguous=not (self.config.compacted and bases),
                verify=verify,
            )
            if bases and not segment.sealed:
                self._unsealed.append((segment, self.producers.snapshot()))
        return segments
