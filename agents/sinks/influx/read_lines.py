"""Line protocol read back: the series and time of a point, and its fields as in a comparable form."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from astrocyte.agents.sinks.base import SinkError

__all__ = ["canonical", "point_fields", "point_key", "point_line", "points_in"]

_MARK: Final = b"#"
_FIELD: Final = re.compile(r'((?:[^\\,=]|\\.)+)=("(?:[^"\\]|\\.)*"|[^,]*)(?:,|\Z)', re.DOTALL)
_POINT: Final = re.compile(r"[^ ].* .*=.* -?\d{1,19}", re.DOTALL | re.ASCII)
_ESCAPED: Final = re.compile(r"\\([,= ])")


def point_key(line: str) -> str:
    """What identifies a point: measurement and tags as they are written, and its time in nanoseconds."""
    return f"{line[: _end_of_series(line)]} {line.rpartition(' ')[2]}"


def point_line(line: str) -> str:
    """The point with its fields in the order of their names.

    The order in which a sink writes them depends on which values the points written together lack, and means nothing.
    """
    first, last = _end_of_series(line) + 1, line.rindex(" ")
    fields = sorted(_FIELD.findall(line[first:last]))
    return f"{line[:first]}{','.join(f'{name}={value}' for name, value in fields)}{line[last:]}"


def point_fields(line: str) -> dict[str, str]:
    """The fields of a point, each as `canonical` text."""
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(line[_end_of_series(line) + 1 : line.rindex(" ")]):
        if value.startswith('"'):
            kind, value = "string", value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        else:
            kind = "long" if value.endswith("i") else "boolean" if value in ("true", "false") else "double"
        fields[_ESCAPED.sub(r"\1", name)] = canonical(kind, value.removesuffix("i") if kind == "long" else value)
    return fields


def canonical(kind: str, text: str) -> str:
    """A value with its type, ``kind`` as in Flux: double, long, boolean, string. Equal values are equal strings."""
    if kind == "double":
        try:
            return f"double {float(text)!r}"
        except ValueError:
            raise SinkError(f"expected a number in a field of a point, got {text!r:.80}") from None
    return f"{'long' if kind == 'unsignedLong' else kind} {text}"


def points_in(path: Path, on_comment: Callable[[bytes], object] | None = None) -> Iterator[tuple[int, str]]:
    """Number of the line, from 1, and the line, of every point of a file, compressed or not.

    ``on_comment`` is called with comments. A block that a living process has begun at the end is left out. Raises
    SinkError for a damaged file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in _points(file, on_comment):
                if not _POINT.fullmatch(line):
                    raise SinkError(f"{path}, line {number}: expected a point in line protocol, got {line!r:.80}")
                yield number, line
    except EOFError:
        return  # the end of a block that is being written
    except (OSError, zlib.error) as error:
        raise SinkError(f"{path} cannot be read: {error}") from None


def _points(file: Iterable[bytes], on_comment: Callable[[bytes], object] | None) -> Iterator[tuple[int, str]]:
    """A point is one line, or several where a string field holds newlines."""
    open_text = b""
    for number, line in enumerate(file, 1):
        if not open_text and (line.startswith(_MARK) or not line.strip()):
            if on_comment is not None and line.strip():
                on_comment(line)
            continue
        open_text += line
        if _is_whole(open_text):
            yield number, open_text.decode(errors="surrogateescape").removesuffix("\n")
            open_text = b""


def _is_whole(text: bytes) -> bool:
    """Whether every quote of the fields is closed; quotes of tags have no meaning."""
    if b'"' not in text:
        return True
    if b"\\" not in text:
        return text.count(b'"', text.find(b" ") + 1) % 2 == 0
    plain = text.decode(errors="surrogateescape")
    at, inside = _end_of_series(plain) + 1, False
    while at < len(plain):
        if inside and plain[at] == "\\":
            at += 1
        elif plain[at] == '"':
            inside = not inside
        at += 1
    return not inside


def _end_of_series(line: str) -> int:
    end = line.find(" ")
    return _find(line, " ", 0) if end < 0 or "\\" in line[:end] else end


def _find(text: str, wanted: str, at: int) -> int:
    """Place of the first ``wanted`` that no backslash precedes; the text's length if there is none."""
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == wanted:
            return at
        else:
            at += 1
    return len(text)
