"""Writing recorded logs: independent zstd frames of some hundred records, and an index at the end.

``zstdcat FILE | jq`` and ``cat A B > C`` work on them.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import zstandard

from astrocyte.agents.sinks.blocks import is_at
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader, record_line
from astrocyte.pipeline.recording.index import Block, Totals, index_frame

__all__ = ["LogWriter", "check_absent"]

_BLOCK_RECORDS: Final = 500
_BLOCK_BYTES: Final = 4 << 20


class LogWriter:
    """Writes a log to ``path``; the complete file appears there, by a rename, when it is closed.

    Until then it is beside it as ``<name>.partial``, which `read_log` reads too. The suffix selects the form:
    ``.zst``, ``.gz``, anything else plain; ``-`` is standard output. Raises InvalidLog if the path, or a part that a
    stopped process has left, exists and ``overwrite`` is not set, if another process writes it, if it cannot be
    written, and as soon as it finds that the file was deleted.
    """

    def __init__(self, path: str | Path, header: LogHeader | None, *, overwrite: bool = False) -> None:
        self.path = None if str(path) == "-" else Path(path)
        self.records = 0
        self.topics: dict[str, Totals] = {}
        self._lines: list[bytes] = []
        self._pending = 0
        self._block_records = 0
        self._blocks: list[Block] = []
        self._first_ms: int | None = None
        self._last_ms = -1
        self._closed = False
        self._form = "plain"
        if self.path is None:
            self._partial = None
            self._file: IO[bytes] = sys.stdout.buffer
        else:
            self._form = {".zst": "zstd", ".gz": "gzip"}.get(self.path.suffix, "plain")
            self._partial = self.path.with_name(self.path.name + ".partial")
            self._file = _own(self._partial, self.path, overwrite=overwrite)
        self._overwrite = overwrite
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._head = [] if header is None else [header.line()]
        self._lines += self._head
        self._indexed = self._form == "zstd"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def write(self, record: ConsumedRecord) -> None:
        """Append one record. Raises OSError where writing fails."""
        line = record_line(record)
        self._lines.append(line)
        self._pending += len(line)
        self.records += 1
        self._block_records += 1
        totals = self.topics.get(record.topic)
        if totals is None:
            totals = self.topics[record.topic] = Totals()
        totals.add(record)
        self._first_ms = record.timestamp_ms if self._first_ms is None else min(self._first_ms, record.timestamp_ms)
        self._last_ms = max(self._last_ms, record.timestamp_ms)
        if self._block_records >= _BLOCK_RECORDS or self._pending >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """End the block, so that all records written so far can be read even if this process is killed.

        Where the disk is full (OSError), the file ends with the block before, and the records can be flushed later.
        """
        if not self._lines:
            return
        data = b"".join(self._lines)
        if self._form == "zstd":
            data = self._compressor.compress(data)
        elif self._form == "gzip":
            data = gzip.compress(data, 6, mtime=0)
        start = self._blocks[-1].offset + self._blocks[-1].size if self._blocks else 0
        self._check()
        self._append(data, start)
        self._blocks.append(Block(start, len(data), self._block_records, self._first_ms or 0, self._last_ms))
        self._lines.clear()
        self._pending = self._block_records = 0
        self._first_ms = None

    def discard(self) -> None:
        """Forget the records since the last flush, for a caller who will not try again. The log gets no index."""
        self._lines = [] if self._blocks else [*self._head]
        self._pending = self._block_records = 0
        self._first_ms = None
        self._indexed = False

    def _append(self, data: bytes, start: int) -> None:
        """Write at the end of the file, which is at ``start``: all of the data or, where that fails, nothing of it."""
        if self._partial is None:
            self._file.write(data)
            self._file.flush()
            return
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(start)
            raise

    def close(self) -> None:
        """Write the index and rename the file to its name. Idempotent."""
        if self._closed:
            return
        self.flush()
        if self._indexed:
            last = self._blocks[-1] if self._blocks else Block(0, 0, 0, 0, 0)
            self._append(index_frame(self._blocks, self.topics, self._compressor), last.offset + last.size)
        self._closed = True
        if self.path is not None and self._partial is not None:
            os.fsync(self._file.fileno())
            try:
                self._check()
                _give_name(self._partial, self.path, overwrite=self._overwrite)
            finally:
                self._file.close()

    def _check(self) -> None:
        """Raises InvalidLog where the file is no longer there: a deleted file still takes writes."""
        if self._partial is None or is_at(self._file.fileno(), self._partial):
            return
        self._closed = True
        self._file.close()
        raise InvalidLog(
            f"{self._partial} was deleted or renamed while it was written; unless it was renamed, the records in it "
            "are lost"
        )

    def abandon(self) -> None:
        """Close without the rename: the records written so far stay in the ``.partial`` file."""
        if self._closed:
            return
        self._closed = True
        if self.path is not None:
            try:
                self.flush()
            finally:
                self._file.close()


def check_absent(path: str | Path, *, overwrite: bool) -> None:
    """Raise InvalidLog if the file exists and ``overwrite`` is not set."""
    if not overwrite and str(path) != "-" and Path(path).exists():
        raise InvalidLog(f"{path} exists; choose another name, or --force to replace it")


def _own(partial: Path, path: Path, *, overwrite: bool) -> IO[bytes]:
    """The file beside a log, locked for this process while it is written. Raises InvalidLog."""
    while True:
        check_absent(path, overwrite=overwrite)
        try:
            file = partial.open("ab", buffering=0)
        except OSError as error:
            raise InvalidLog(f"{partial} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = is_at(file.fileno(), partial)
            if is_there and not overwrite and os.fstat(file.fileno()).st_size:
                raise InvalidLog(
                    f"{partial} exists: it holds what was recorded before a process was stopped, and can be read. "
                    "Rename it, choose another name, or --force to replace it"
                )
        except BlockingIOError:
            file.close()
            raise InvalidLog(f"{path} is being written by another process; choose another name") from None
        except BaseException:
            file.close()
            raise
        if is_there:
            file.truncate(0)
            return file
        # The process that held the lock has given the file its name meanwhile.
        file.close()


def _give_name(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Raises InvalidLog where another program has made a file of that name meanwhile."""
    if not overwrite:
        try:
            os.link(partial, path)  # a rename would replace a file that came meanwhile
        except OSError as error:
            if error.errno == errno.EEXIST or path.exists():
                raise InvalidLog(
                    f"{path} was made by another program meanwhile and stays as it is; what was recorded is in "
                    f"{partial}: rename it"
                ) from None
            # A file system without links.
        else:
            partial.unlink()
            return
    partial.replace(path)
