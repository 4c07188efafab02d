"""Reading recorded logs in any form: zstd, gzip or plain, our format or kcat's, complete or torn at the end.

The form is recognised by a file's first bytes, not by its name. Records before a tear are yielded, then it is reported.
"""

from __future__ import annotations

import logging
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import orjson
import zstandard

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader, TornLog, parse_line
from astrocyte.pipeline.recording.index import SKIPPABLE, read_index
from astrocyte.schemas.json.text import loads
from astrocyte.schemas.times import us_from_ms

__all__ = ["GZIP", "ZSTD", "first_ms_of", "json_object", "open_log", "read_header", "read_lines", "read_log"]

log = logging.getLogger(__name__)

ZSTD: Final = b"\x28\xb5\x2f\xfd"
GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_CHUNK: Final = 1 << 20
_FIRST_LINES: Final = 1000
"""Number of lines that decide whether a file is text or binary data."""
_SLICE: Final = 1 << 10
"""Compressed bytes that are unpacked at once: they become at most some tens of megabytes, whatever they claim."""
_LONGEST: Final = 256 << 20
"""Bytes of a line: the largest message of a broker, as text and in base64, is shorter."""


def read_header(path: str | Path) -> LogHeader | None:
    """The header of a log, or None for plain ``kcat -J`` output and an empty file. Raises InvalidLog."""
    for item in open_log(path):
        return item if isinstance(item, LogHeader) else None
    return None


def read_log(
    path: str | Path, *, start_ms: int | None = None, on_torn: Callable[[TornLog], None] | None = None
) -> Iterator[ConsumedRecord]:
    """Records of a log in order; reads ``.jsonl``, ``.gz``, ``.zst`` and plain ``kcat -J`` output; ``-`` is stdin.

    With ``start_ms`` earlier records are left out; where the log has an index, their blocks are not read. A log torn
    at its end yields its complete records, then calls ``on_torn`` (default: log a warning). Raises InvalidLog for a
    file that is not a log or is damaged before its end.
    """
    try:
        for item in open_log(path, start_ms=start_ms):
            if isinstance(item, ConsumedRecord) and (start_ms is None or item.timestamp_ms >= start_ms):
                yield item
    except TornLog as error:
        if on_torn is None:
            log.warning("%s", error)
        else:
            on_torn(error)


def json_object(line: bytes) -> Mapping[str, Any] | None:
    """The JSON object of a line, or None."""
    try:
        body = loads(line)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def read_lines(path: str | Path, *, known: bool = False) -> Iterator[bytes]:
    """Lines of a file, decompressed, without their newlines. ``known``: to be text, such as CSV. Raises InvalidLog."""
    try:
        with Path(path).open("rb") as file:
            for line, _ in _lines(file, str(path), known=known):
                yield line
    except OSError as error:
        raise InvalidLog(f"{path}: {error.strerror}") from None
    except _Damage as damage:
        raise InvalidLog(f"{path} is damaged or ends inside a compressed block: {damage}") from None


def open_log(path: str | Path, *, start_ms: int | None = None) -> Iterator[ConsumedRecord | LogHeader]:
    """Headers and records of a log. Raises TornLog after the last complete record of a torn log, else InvalidLog."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        file = sys.stdin.buffer if str(path) == "-" else Path(path).open("rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise InvalidLog(f"log {name}: {error.strerror}") from None
    try:
        if start_ms is not None and (index := read_index(path)) is not None and index.blocks:
            late = next((block for block in index.blocks if block.last_ms >= start_ms), None)
            file.seek(index.blocks[-1].offset + index.blocks[-1].size if late is None else late.offset)
        records = 0
        for line, whole in _lines(file, name):
            if not line.strip():
                continue
            try:
                item = parse_line(line)
            except InvalidLog as error:
                if records == 0 and (hint := _not_lines(line, whole=whole)):
                    raise InvalidLog(f"{name}: {hint}") from None
                if not whole:
                    raise TornLog(
                        f"log {name} ends inside a record (a crash, or an interrupted copy): the {records} records "
                        "before it were read"
                    ) from None
                raise InvalidLog(f"log {name}, after {records} records: {error}") from None
            records += isinstance(item, ConsumedRecord)
            yield item
    except _Damage as damage:
        kind = TornLog if damage.at_end else InvalidLog
        what = (
            "ends inside a compressed block (a crash, or an interrupted copy)"
            if damage.at_end
            else f"is damaged: {damage}"
        )
        raise kind(f"log {name} {what}; records before it: {records}") from None
    finally:
        if str(path) != "-":
            file.close()


def _not_lines(line: bytes, *, whole: bool) -> str:
    """What a file holds that begins with this line, where that is JSON over several lines; else empty."""
    text = line.strip()
    if text.startswith(b"["):
        return "it holds a JSON array; expected one JSON object a line, such as 'jq -c .[]' makes of it"
    if whole and text.startswith(b"{") and text.endswith((b"{", b"[", b",")):
        return (
            "it holds JSON objects over several lines, or with commas between them; expected one JSON object a line "
            "and nothing after it, such as 'jq -c .' makes of objects"
        )
    return ""


class _Damage(Exception):
    """Compressed data that are truncated or corrupt; ``at_end`` if nothing readable follows."""

    def __init__(self, reason: str, *, at_end: bool) -> None:
        super().__init__(reason)
        self.at_end = at_end


def _lines(file: IO[bytes], name: str, *, known: bool = False) -> Iterator[tuple[bytes, bool]]:
    """Lines, and whether each had its newline."""
    rest: list[bytes] = []
    waiting, lines = 0, 0
    damage: _Damage | None = None
    pieces = _pieces(file, name, known=known)
    begun = False
    while True:
        try:
            piece = next(pieces, None)
            if piece is not None and not begun:
                piece, begun = piece.removeprefix(_BOM), True
        except _Damage as error:
            piece, damage = None, error
        if piece is None:
            break
        head, newline, tail = piece.rpartition(b"\n")
        if waiting + (len(head) if newline else len(piece)) > _LONGEST + _CHUNK:
            raise InvalidLog(f"{name}, line {lines + 1:,}: expected at most {_LONGEST:,} bytes, got more")
        if not newline:
            rest.append(piece)
            waiting += len(piece)
            continue
        for line in b"".join([*rest, head]).split(b"\n"):
            lines += 1
            yield line, True
        rest, waiting = [tail] if tail else [], len(tail)
    if damage is not None:
        raise damage
    if rest:
        yield b"".join(rest), False


def _pieces(file: IO[bytes], name: str, *, known: bool) -> Iterator[bytes]:
    """Decompressed data of the file, in pieces."""
    data = file.read(_CHUNK)
    if data.startswith((ZSTD, SKIPPABLE)):
        yield from _unzstd(file, data)
    elif data.startswith(GZIP):
        yield from _ungzip(file, data)
    elif not known and b"\0" in data[:4096] and not any(map(json_object, data.split(b"\n", _FIRST_LINES))):
        # A text may hold a damaged line; a file of which nothing can be read is of another kind.
        raise InvalidLog(f"expected a recorded log (zstd, gzip or plain JSON lines), got other binary data in {name}")
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
        if data[1:4] == SKIPPABLE[1:] and data[0] & 0xF0 == 0x50 and len(data) >= 8:
            length = 8 + int.from_bytes(data[4:8], "little")
            while len(data) < length:
                more = file.read(_CHUNK)
                if not more:
                    return  # a torn index costs no record
                data += more
            data = data[length:]
            continue
        frame = decompressor.decompressobj()
        at = 0
        while not frame.eof:
            if at >= len(data):
                data, at = file.read(_CHUNK), 0
                if not data:
                    raise _Damage("unexpected end", at_end=True)
            part = data[at : at + _SLICE]
            try:
                piece = frame.decompress(part)
            except zstandard.ZstdError as error:
                raise _Damage(str(error), at_end=not _another_frame(file, data[at:])) from None
            at += len(part)
            if piece:
                yield piece
        data = frame.unused_data + data[at:]


def _another_frame(file: IO[bytes], data: bytes) -> bool:
    """Whether a zstd frame begins after this position: then the file is damaged inside, not torn at its end."""
    found = data.find(ZSTD, 4)
    if found < 0:
        found = file.read().find(ZSTD)
    return found >= 0


def _ungzip(file: IO[bytes], data: bytes) -> Iterator[bytes]:
    while True:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(data, _CHUNK)
            except zlib.error as error:
                raise _Damage(str(error), at_end=not file.read(1)) from None
            if piece:
                yield piece
            data = member.unconsumed_tail
            if not member.eof and not data and not piece:
                data = file.read(_CHUNK)
                if not data:
                    raise _Damage("unexpected end", at_end=True)
        data = member.unused_data or file.read(_CHUNK)
        if not data:
            return


def first_ms_of(paths: Sequence[str | Path]) -> int:
    """Time of the first message over all logs, in milliseconds, from the index where there is one.

    Raises InvalidLog where no message has a time.
    """
    first = math.inf
    for path in paths:
        index = read_index(path)
        if index is not None and index.records:
            first = min([first, *(totals.first_ms for totals in index.topics.values() if totals.first_ms >= 0)])
        else:
            times = (record.timestamp_ms for record in read_log(path))
            first = min([first, *(time_ms for time_ms in times if us_from_ms(time_ms) is not None)])
    if math.isinf(first):
        raise InvalidLog(f"{', '.join(map(str, paths))}: the log holds no message with a time")
    return int(first)
