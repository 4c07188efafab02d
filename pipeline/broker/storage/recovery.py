"""Recovery of a segment after a crash: keeps its complete, valid and contiguous batches.

The last batch of the open segment may be incomplete after a kill or a power failure; it was never acknowledged as
durable and is cut off. Any other invalid bytes were stored once: they are moved to a file beside the segment, with an
error in the log.
"""

from __future__ import annotations

import logging
import mmap
import os
from contextlib import ExitStack
from typing import Literal

from crc32c import crc32c

from astrocyte.pipeline.broker.protocol.batch import HEADER_BYTES, checksum_holds, read_header
from astrocyte.pipeline.broker.protocol.errors import BrokerError
from astrocyte.pipeline.broker.storage.index import IndexFile
from astrocyte.pipeline.broker.storage.producers import ProducerTable
from astrocyte.pipeline.broker.storage.segment import Segment

__all__ = ["compacted_reach", "recover_segment"]

logger = logging.getLogger(__name__)

TORN = "the last batch is incomplete"


def recover_segment(
    segment: Segment,
    producers: ProducerTable,
    *,
    ends_at: int | None,
    contiguous: bool,
    verify: Literal["tail", "all"] = "tail",
) -> int:
    """Restore a segment and the producers' table from its file; returns the number of bytes cut off.

    ``ends_at`` is the next segment's first offset, None for the open segment. ``contiguous`` requires offsets without
    gaps, which verifies the base offset: a batch's checksum does not cover it.
    """
    real = os.fstat(segment.fileno()).st_size
    stored = IndexFile.load(segment.index_path)
    with ExitStack() as resources:
        view = memoryview(b"")
        if real:
            content = resources.enter_context(mmap.mmap(segment.fileno(), real, access=mmap.ACCESS_READ))
            view = resources.enter_context(memoryview(content))
        if stored is not None and _matches(segment, stored, view):
            if verify == "tail" or stored.compacted:
                segment.adopt(stored)
                producers.restore(stored.producers)
        else:
            stored = None
        end, fault = _scan(segment, producers, view, ends_at, contiguous=contiguous)
        lost = bytes(view[end:]) if fault else b""
    if fault and (fault != TORN or ends_at is not None):
        _set_aside(segment, end, lost, fault)
    elif fault:
        logger.info("%s: cut %d bytes of an incomplete batch", segment.path, real - end)
    if end < real:
        os.ftruncate(segment.fileno(), end)
    if segment.size and not segment.appended_ms:
        segment.appended_ms = int(os.fstat(segment.fileno()).st_mtime * 1000)
    if ends_at is not None:  # a closed segment reaches to the next one, even if its last records are missing
        if segment.next_offset < ends_at and (fault or not segment.compacted):
            logger.error("%s: offsets %d to %d are lost", segment.path, segment.next_offset, ends_at - 1)
        segment.next_offset = ends_at
        segment.sealed = stored is not None and stored.covered == segment.size
    return real - end


def compacted_reach(segment: Segment) -> int:
    """The offset after a compacted segment; 0 if it is not compacted or does not match its index file.

    Segments that begin before it were merged into this one, and a crash prevented their removal.
    """
    stored = IndexFile.load(segment.index_path)
    if stored is None or not stored.compacted or crc32c(segment.path.read_bytes()) != stored.file_crc:
        return 0
    return stored.next_offset


def _matches(segment: Segment, stored: IndexFile, view: memoryview) -> bool:
    """Whether an index file matches its log file; of a compacted segment the whole content must match."""
    if not stored.compacted:
        return stored.covered <= len(view)
    if stored.covered == len(view) and crc32c(view) == stored.file_crc:
        return True
    logger.error("%s: the compacted segment does not match its index file; recovering its valid batches", segment.path)
    return False


def _scan(
    segment: Segment, producers: ProducerTable, view: memoryview, ends_at: int | None, *, contiguous: bool
) -> tuple[int, str]:
    """Add the batches after the known ones; returns the end position, and "" (complete), TORN, or the damage."""
    position = segment.size
    while position < len(view):
        if position + HEADER_BYTES > len(view):
            return position, TORN
        header = read_header(view, position)
        follows = header.base_offset == segment.next_offset if contiguous else header.base_offset >= segment.next_offset
        if not (header.plausible and follows and (ends_at is None or header.next_offset <= ends_at)):
            zeros = not bytes(view[position:]).strip(b"\0")  # a file that grew before its pages were written
            return position, TORN if zeros else f"no valid batch at byte {position}"
        end = position + header.size
        if end > len(view):
            return position, TORN
        with view[position:end] as batch:
            if not checksum_holds(header, batch):
                return position, f"the batch at byte {position} does not match its checksum"
        segment.note(header, position)
        producers.note(header)
        position = end
    return position, ""


def _set_aside(segment: Segment, at: int, lost: bytes, fault: str) -> None:
    kept = segment.path.with_suffix(f".damaged-{at}")
    try:
        kept.write_bytes(lost)
    except OSError as error:
        raise BrokerError(
            f"{segment.path} is damaged ({fault}) and its {len(lost)} bytes from there cannot be saved "
            f"as {kept.name}: {error.strerror}; free disk space or move the file away, then start again"
        ) from error
    logger.error("%s: %s; %d bytes were moved to %s", segment.path, fault, len(lost), kept.name)
