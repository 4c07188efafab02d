"""Files of recorded logs: written in independent zstd frames with an index at the end, read in any form.

A frame of zstd holds some hundred records and can be read alone. The index is a skippable frame at the file's end,
which every zstd tool passes over: ``zstdcat FILE | jq`` works, and so does ``cat A B > C`` (the index is then not
used). A reader tells zstd, gzip and plain text apart by their first bytes, not by the file's name.
"""

from __future__ import annotations

import gzip
import logging
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import orjson
import zstandard

from pipeline.log_format import InvalidLog, LogHeader, LogRecord, TornLog, parse_line, record_line

__all__ = ["Block", "Index", "LogWriter", "open_log", "read_header", "read_index", "read_log"]

log = logging.getLogger(__name__)

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x5a\x2a\x4d\x18"
_GZIP: Final = b"\x1f\x8b"
_FOOTER: Final = struct.Struct("<QI8s")  # where the skippable frame starts, length of the index, magic
_MAGIC: Final = b"ASTROIDX"
_CHUNK: Final = 1 << 20
_BLOCK_RECORDS: Final = 500
_BLOCK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """One zstd frame of a log: where it lies, and what it holds."""

    offset: int
    size: int
    records: int
    first_ms: int
    """Least timestamp in the block."""
    last_ms: int
    """Greatest timestamp in the block or any before it."""


@dataclass(frozen=True, slots=True)
class Index:
    """The blocks of a log and the number of records of each (topic, partition)."""

    blocks: tuple[Block, ...]
    counts: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Number of records in the log."""
        return sum(block.records for block in self.blocks)


class LogWriter:
    """Writes a log to ``path``; it appears there whole, by a rename, when it is closed.

    Until then it lies beside it as ``<name>.partial``, which `read_log` reads too. The name's end selects the form:
    ``.zst``, ``.gz``, anything else plain; ``-`` is standard output. Raises InvalidLog if the path exists and
    ``overwrite`` is not set.
    """

    def __init__(self, path: str | Path, header: LogHeader | None, *, overwrite: bool = False) -> None:
        self.path = None if str(path) == "-" else Path(path)
        self.records = 0
        self.bytes = 0
        self.counts: dict[str, dict[int, int]] = {}
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
            if self.path.exists() and not overwrite:
                raise InvalidLog(f"{self.path} exists; choose another name, or --force to replace it")
            self._form = {".zst": "zstd", ".gz": "gzip"}.get(self.path.suffix, "plain")
            self._partial = self.path.with_name(self.path.name + ".partial")
            try:
                self._file = self._partial.open("wb")
            except OSError as error:
                raise InvalidLog(f"{self._partial} cannot be written: {error.strerror}") from None
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        if header is not None:
            self._lines.append(header.line())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def write(self, record: LogRecord) -> None:
        """Append one record. Raises OSError where the disk does."""
        line = record_line(record)
        self._lines.append(line)
        self._pending += len(line)
        self.records += 1
        self._block_records += 1
        self.bytes += len(record.value or b"") + len(record.key or b"")
        of_topic = self.counts.setdefault(record.topic, {})
        of_topic[record.partition] = of_topic.get(record.partition, 0) + 1
        self._first_ms = record.timestamp_ms if self._first_ms is None else min(self._first_ms, record.timestamp_ms)
        self._last_ms = max(self._last_ms, record.timestamp_ms)
        if self._block_records >= _BLOCK_RECORDS or self._pending >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """End the block, so that everything written so far can be read even if this process dies."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        if self._form == "zstd":
            data = self._compressor.compress(data)
        elif self._form == "gzip":
            data = gzip.compress(data, 6, mtime=0)
        start = self._blocks[-1].offset + self._blocks[-1].size if self._blocks else 0
        self._file.write(data)
        self._file.flush()
        self._blocks.append(Block(start, len(data), self._block_records, self._first_ms or 0, self._last_ms))
        self._lines.clear()
        self._pending = self._block_records = 0
        self._first_ms = None

    def close(self) -> None:
        """Write the index and give the file its name. Called again it does nothing."""
        if self._closed:
            return
        self.flush()
        if self._form == "zstd":
            self._file.write(_index_frame(self._blocks, self.counts, self._compressor))
        self._file.flush()
        self._closed = True
        if self.path is not None and self._partial is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self.path)

    def abandon(self) -> None:
        """Close without the rename: what was written stays in the ``.partial`` file."""
        if self._closed:
            return
        self._closed = True
        if self.path is not None:
            try:
                self.flush()
            finally:
                self._file.close()


def _index_frame(blocks: list[Block], counts: dict[str, dict[int, int]], compressor: zstandard.ZstdCompressor) -> bytes:
    body = {
        "blocks": [[block.offset, block.size, block.records, block.first_ms, block.last_ms] for block in blocks],
        "counts": {topic: {str(number): n for number, n in parts.items()} for topic, parts in counts.items()},
    }
    data = compressor.compress(orjson.dumps(body))
    start = blocks[-1].offset + blocks[-1].size if blocks else 0
    data += _FOOTER.pack(start, len(data), _MAGIC)
    return _SKIPPABLE + struct.pack("<I", len(data)) + data


def read_index(path: str | Path) -> Index | None:
    """The index of a log, or None where it has none (plain, gzip, torn, or several logs in one file)."""
    path = Path(path)
    if str(path) == "-" or not path.is_file():
        return None
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        if length < _FOOTER.size + 8:
            return None
        file.seek(length - _FOOTER.size)
        start, size, magic = _FOOTER.unpack(file.read())
        if magic != _MAGIC or start + 8 + size + _FOOTER.size != length:
            return None
        file.seek(start)
        if file.read(4) != _SKIPPABLE:
            return None
        file.seek(start + 8)
        data = file.read(size)
    try:
        body = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
        return Index(
            tuple(Block(*entry) for entry in body["blocks"]),
            {topic: {int(n): count for n, count in parts.items()} for topic, parts in body["counts"].items()},
        )
    except (zstandard.ZstdError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def read_header(path: str | Path) -> LogHeader | None:
    """The header of a log, or None for plain ``kcat -J`` output and an empty file. Raises InvalidLog."""
    for item in open_log(path):
        return item if isinstance(item, LogHeader) else None
    return None


def read_log(
    path: str | Path, *, start_ms: int | None = None, on_torn: Callable[[TornLog], None] | None = None
) -> Iterator[LogRecord]:
    """Records of a log in order; reads ``.jsonl``, ``.gz``, ``.zst`` and plain ``kcat -J`` output; ``-`` is stdin.

    With ``start_ms`` the records before it are left out, whole blocks unread where the log has an index. A log torn
    at its end gives what is whole, then calls ``on_torn`` (by default it is logged). Raises InvalidLog for a file
    that is no log or is damaged before its end.
    """
    try:
        for item in open_log(path, start_ms=start_ms):
            if isinstance(item, LogRecord) and (start_ms is None or item.timestamp_ms >= start_ms):
                yield item
    except TornLog as error:
        if on_torn is None:
            log.warning("%s", error)
        else:
            on_torn(error)


def open_log(path: str | Path, *, start_ms: int | None = None) -> Iterator[LogRecord | LogHeader]:
    """Headers and records of a log. Raises TornLog after the last whole record of a torn one, else InvalidLog."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        file = sys.stdin.buffer if str(path) == "-" else Path(path).open("rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise InvalidLog(f"log {name}: {error.strerror}") from None
    try:
        if start_ms is not None and (index := read_index(path)) is not None:
            late = next((block for block in index.blocks if block.last_ms >= start_ms), None)
            file.seek(index.blocks[-1].offset + index.blocks[-1].size if late is None else late.offset)
        records = 0
        for line, whole in _lines(file, name):
            if not line.strip():
                continue
            try:
                item = parse_line(line)
            except InvalidLog as error:
                if not whole:
                    raise TornLog(
                        f"log {name} ends inside a record (a crash, or a copy cut short): the {records} records before "
                        "it were read"
                    ) from None
                raise InvalidLog(f"log {name}, after {records} records: {error}") from None
            records += isinstance(item, LogRecord)
            yield item
    except _Cut as cut:
        kind = TornLog if cut.at_end else InvalidLog
        what = "ends inside a compressed block (a crash, or a copy cut short)" if cut.at_end else f"is damaged: {cut}"
        raise kind(f"log {name} {what}; records before it: {records}") from None
    finally:
        if str(path) != "-":
            file.close()


class _Cut(Exception):
    """Compressed data that end or break; ``at_end`` if nothing readable follows."""

    def __init__(self, reason: str, *, at_end: bool) -> None:
        super().__init__(reason)
        self.at_end = at_end


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[bytes, bool]]:
    """Lines, and whether each had its newline."""
    rest: list[bytes] = []
    cut: _Cut | None = None
    pieces = _pieces(file, name)
    while True:
        try:
            piece = next(pieces, None)
        except _Cut as error:
            piece, cut = None, error
        if piece is None:
            break
        head, newline, tail = piece.rpartition(b"\n")
        if not newline:
            rest.append(piece)
            continue
        for line in b"".join([*rest, head]).split(b"\n"):
            yield line, True
        rest = [tail] if tail else []
    if cut is not None:
        raise cut
    if rest:
        yield b"".join(rest), False


def _pieces(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Decompressed data of the file, in pieces."""
    data = file.read(_CHUNK)
    if data.startswith((_ZSTD, _SKIPPABLE)):
        yield from _unzstd(file, data)
    elif data.startswith(_GZIP):
        yield from _ungzip(file, data)
    elif data and b"\0" in data[:4096]:
        raise InvalidLog(f"{name} holds binary data and is no recorded log (zstd, gzip or plain JSON lines)")
    else:
        while data:
            yield data
            data = file.read(_CHUNK)


def _unzstd(file: IO[bytes], data: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    while True:
        while len(data) < 8:
            more = file.read(_CHUNK)
            if not more:
                break
            data += more
        if not data:
            return
        if data[1:4] == _SKIPPABLE[1:] and data[0] & 0xF0 == 0x50 and len(data) >= 8:
            length = 8 + int.from_bytes(data[4:8], "little")
            while len(data) < length:
                more = file.read(_CHUNK)
                if not more:
                    return  # a torn index loses no record
                data += more
            data = data[length:]
            continue
        frame = decompressor.decompressobj()
        while not frame.eof:
            try:
                piece = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise _Cut(str(error), at_end=not _another(file, data)) from None
            if piece:
                yield piece
            data = b""
            if not frame.eof:
                data = file.read(_CHUNK)
                if not data:
                    raise _Cut("unexpected end", at_end=True)
        data = frame.unused_data


def _another(file: IO[bytes], data: bytes) -> bool:
    """Whether a zstd frame begins after this place: then the file is damaged inside, not torn at its end."""
    found = data.find(_ZSTD, 4)
    if found < 0:
        found = file.read().find(_ZSTD)
    return found >= 0


def _ungzip(file: IO[bytes], data: bytes) -> Iterator[bytes]:
    while True:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(data)
            except zlib.error as error:
                raise _Cut(str(error), at_end=not file.read(1)) from None
            if piece:
                yield piece
            data = b""
            if not member.eof:
                data = file.read(_CHUNK)
                if not data:
                    raise _Cut("unexpected end", at_end=True)
        data = member.unused_data or file.read(_CHUNK)
        if not data:
            return
