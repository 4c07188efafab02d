"""Line protocol, a whole table at a time: Arrow columns to one line per row, without a Python object per point.

A field always has the same type: integers are written with ``i``, floats without, booleans as ``true`` and ``false``,
strings in quotes, lists as JSON text. Null, NaN and infinite values are omitted; a row without any field is omitted and
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.values.mixed import MIXED, key_column, members

__all__ = ["Lines", "encode_points", "escape_measurement", "escape_tag"]

_STRING: Final = pa.large_utf8()
# InfluxDB 2 has no escapes for these three in names and tags; those of InfluxData's clients are used.
_CONTROLS: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MEASUREMENT: Final = str.maketrans({",": "\\,", " ": "\\ ", **_CONTROLS})
_TAG: Final = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ ", **_CONTROLS})
_NUMBERS: Final = ("int", "uint", "float")
_QUOTED: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Points of one item of a batch, one line each, with the newline."""

    strings: pa.Array
    rows: NDArray[np.int64]
    """Row of the frame (or index of the record) of each line."""
    empty: int = 0
    """Number of rows without a value to store."""

    def __len__(self) -> int:
        return len(self.strings)

    def split(self) -> list[bytes]:
        """Each line by itself."""
        return self.strings.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]

    def payload(self, start: int = 0, stop: int | None = None) -> bytes:
        """Lines ``start`` up to ``stop``, concatenated: a slice of the array's data buffer."""
        stop = len(self.strings) if stop is None else stop
        if stop <= start:
            return b""
        bounds = np.frombuffer(self.strings.buffers()[1], np.int64)[self.strings.offset :]
        return bytes(memoryview(self.strings.buffers()[2])[bounds[start] : bounds[stop]])


def escape_measurement(text: str) -> str:
    """Escape the name of a measurement."""
    return text.translate(_MEASUREMENT)


def escape_tag(text: str) -> str:
    """Escape the name of a tag or field, or the value of a tag.

    A backslash has no escape, and a final one would escape the following separator, so a dot is appended to it; and
    one more to text that ends so already, so that no two strings become one series. (With a space, as InfluxData's
    client appends it, a backslash at the end would be the same as a space.)
    """
    if text.rstrip(".").endswith("\\"):
        text += "."
    return text.translate(_TAG)


def encode_points(
    name: str,
    tags: Mapping[str, pa.Array],
    fields: Mapping[str, pa.Array],
    times_ns: NDArray[np.int64],
    rows: NDArray[np.int64] | None = None,
) -> Lines:
    """Points of columns; tags are sorted by name, which is fastest for InfluxDB."""
    rows = np.arange(len(times_ns)) if rows is None else rows
    if len(times_ns) == 0:
        return Lines(pa.array([], _STRING), rows)
    join = _Join(escape_measurement(name))
    for tag in sorted(tags):
        join.add_optional(f",{escape_tag(tag)}=", _tag_strings(tags[tag]), "")
    join.text(" ")
    there = _add_fields(join, fields, len(times_ns))
    join.text(" ")
    join.column(pa.array(times_ns).cast(_STRING))
    join.text("\n")
    strings = join.result()
    if there is None or there.all():
        return Lines(strings, rows)
    kept = np.flatnonzero(there)
    return Lines(strings.take(pa.array(kept)), rows[kept], len(rows) - len(kept))


class _Join:
    """Builder that joins constant strings and columns of strings in one pass."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts: list[Any] = []

    def text(self, text: str) -> None:
        self._text += text

    def column(self, strings: pa.Array) -> None:
        if self._text:
            self._parts.append(pa.scalar(self._text, _STRING))
            self._text = ""
        self._parts.append(strings)

    def add_optional(self, before: str, strings: pa.Array, after: str) -> None:
        """Add the column between two constant strings; an empty string where it is null."""
        if strings.null_count == 0:
            self.text(before)
            self.column(strings)
            self.text(after)
        elif strings.null_count < len(strings):
            self.column(pc.coalesce(_surrounded(before, strings, after), pa.scalar("", _STRING)))

    def result(self) -> pa.Array:
        if self._text:
            self._parts.append(pa.scalar(self._text, _STRING))
        return pc.binary_join_element_wise(*self._parts, pa.scalar("", _STRING))


def _surrounded(before: str, strings: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(
        pa.scalar(before, _STRING), strings, pa.scalar(after, _STRING), pa.scalar("", _STRING)
    )


def _add_fields(join: _Join, fields: Mapping[str, pa.Array], count: int) -> NDArray[np.bool_] | None:
    """Add the fields, separated by commas; returns flags of the rows that have a field, None if all have.

    They keep their order, so that the text of a point does not depend on the rows beside it: files know a line again
    by its text.
    """
    found = [(escape_tag(name), *_field_strings(column)) for name, column in _by_type(fields).items()]
    found = [
        (label, quote, strings, after) for label, quote, strings, after in found if strings.null_count < len(strings)
    ]
    if not found:
        return np.zeros(count, np.bool_)
    if found[0][2].null_count == 0:
        for number, (label, quote, strings, after) in enumerate(found):
            comma = "," if number else ""
            join.add_optional(f"{comma}{label}={quote}", strings, after)
        return None
    # Every field has its comma before it, and the first one that a row has loses it.
    optional = _Join("")
    for label, quote, strings, after in found:
        optional.add_optional(f",{label}={quote}", strings, after)
    body = pc.utf8_slice_codeunits(optional.result(), 1)
    join.column(body)
    return np.asarray(pc.greater(pc.binary_length(body), 0))


def _by_type(fields: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """The fields, of which those with values of several types become one for each: a field has one type in InfluxDB.

    Numbers stay in ``name``, as floats; text is in ``name_text`` and booleans are in ``name_bool``.
    """
    found: dict[str, pa.Array] = {}
    for name, column in fields.items():
        if column.type != MIXED:
            found[name] = column
            continue
        parts = members(column)
        numbers = [pc.cast(part, pa.float64(), safe=False) for kind, part in parts.items() if kind in _NUMBERS]
        if numbers:
            found[name] = pc.coalesce(*numbers)
        found |= {f"{name}_{kind}": part for kind, part in parts.items() if kind not in _NUMBERS}
    return found


def _tag_strings(column: pa.Array) -> pa.Array:
    """Values of a tag as strings; null where the value is null or empty, because InfluxDB allows no empty tag."""
    if column.type == MIXED:
        column = key_column(column)
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    if column.type == TEXT:
        strings = [escape_tag(text) if text else None for text in column.dictionary.to_pylist()]
        return pa.array(strings, _STRING).take(column.indices)
    return column.cast(_STRING)


def _field_strings(column: pa.Array) -> tuple[str, pa.Array, str]:
    """Prefix, values as strings, and suffix; a value is null where there is nothing to store."""
    kind = column.type
    if kind == TEXT:
        strings = [None if text is None else text.translate(_QUOTED) for text in column.dictionary.to_pylist()]
        return '"', pa.array(strings, _STRING).take(column.indices), '"'
    if pa.types.is_string(kind):
        escaped = pc.replace_substring(pc.replace_substring(column.cast(_STRING), "\\", "\\\\"), '"', '\\"')
        return '"', escaped, '"'
    if pa.types.is_list(kind):
        return '"[', _list_strings(column), ']"'
    if pa.types.is_boolean(kind):
        return "", column.cast(_STRING), ""
    if pa.types.is_integer(kind):
        return "", column.cast(_STRING), "i"
    if pa.types.is_floating(kind):
        return "", _finite(column).cast(_STRING), ""
    return "", pa.nulls(len(column), _STRING), ""


def _finite(column: pa.Array) -> pa.Array:
    """The column with null for NaN and infinities."""
    finite = pc.is_finite(column)
    if pc.all(finite, min_count=0).as_py() and column.null_count == 0:
        return column
    return pc.if_else(finite, column, pa.scalar(None, column.type))


def _list_strings(column: pa.Array) -> pa.Array:
    """JSON text of lists of numbers, without the brackets; null, NaN and infinite values become ``null``."""
    if column.null_count == len(column):
        return pa.nulls(len(column), _STRING)
    values = pc.coalesce(_finite(column.flatten()).cast(pa.utf8()), pa.scalar("null", pa.utf8()))
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(bounds), values), ",").cast(_STRING)
    return pc.if_else(pc.is_valid(column), joined, pa.scalar(None, _STRING)) if column.null_count else joined
