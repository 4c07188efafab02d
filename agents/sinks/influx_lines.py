"""Line protocol, a whole frame at a time: Arrow columns to one text a row, with no Python object per point.

A field keeps its type for ever: integers are written with ``i``, floats without, truth values as ``true`` and
``false``, text in quotes. Null, NaN and infinite values are left out, and a row that has no field left is no point (and
is counted).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.frames import TEXT, Frame
from schemas.measurements import Measurement

__all__ = ["Lines", "encode_points", "escape_tag", "frame_lines", "record_lines"]

_ESCAPES: Final = (
    ("\\", "\\\\"),
    (",", "\\,"),
    ("=", "\\="),
    (" ", "\\ "),
    ("\n", "\\n"),
    ("\r", "\\r"),
    ("\t", "\\t"),
)
_STRING: Final = pa.large_utf8()


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Points of one batch, one text each, with the line's end."""

    texts: pa.Array
    rows: NDArray[np.int64]
    """Row of the frame (or index of the record) that each line is of."""
    empty: int = 0
    """Rows that have no value to store."""

    def __len__(self) -> int:
        return len(self.texts)

    def payload(self) -> bytes:
        """All lines, one after the other: the array's own data, with no text made in between."""
        if len(self.texts) == 0:
            return b""
        bounds = np.frombuffer(self.texts.buffers()[1], np.int64)[self.texts.offset :]
        return bytes(memoryview(self.texts.buffers()[2])[bounds[0] : bounds[len(self.texts)]])


def escape_tag(text: str) -> str:
    """Text as a measurement's, tag's or field's name, or a tag's value; the separators are escaped."""
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    # A backslash at the end would escape the separator that follows it.
    return text


def frame_lines(
    frame: Frame, measurement: Measurement, *, entity_limit: int, offsets: NDArray[np.int64] | int
) -> Lines:
    """Points of a frame's rows. ``offsets`` are the rows' Kafka offsets, which number rows that have no sequence.

    Of the measurement's entity only ids below ``entity_limit`` are tags; the other rows carry it as a field.
    """
    if frame.num_rows == 0:
        return Lines(pa.array([], _STRING), np.empty(0, np.int64))
    times_ns = _apart(frame, measurement, offsets)
    if measurement.entity is None or not frame.has(measurement.entity):
        return _lines(frame, measurement, times_ns, np.arange(frame.num_rows))
    ids = frame.column(measurement.entity)
    small = np.asarray(pc.less(ids, entity_limit).fill_null(False))
    without = tuple(tag for tag in measurement.tags if tag != measurement.entity)
    as_field = Measurement(measurement.name, without, (measurement.entity, *measurement.fields))
    parts = []
    for chosen, shape in ((small, measurement), (~small, as_field)):
        rows = np.flatnonzero(chosen)
        if len(rows) == frame.num_rows:
            return _lines(frame, shape, times_ns, rows)
        if len(rows):
            parts.append(_lines(frame.take(rows), shape, times_ns[rows], rows))
    order = np.argsort(np.concatenate([part.rows for part in parts]), kind="stable")
    texts = pa.concat_arrays([part.texts for part in parts]).take(pa.array(order))
    return Lines(texts, np.concatenate([part.rows for part in parts])[order], sum(part.empty for part in parts))


def _apart(frame: Frame, measurement: Measurement, offsets: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Times in nanoseconds, moved by less than ``spread_ns`` so that rows of one run and measurement never meet."""
    numbered = not frame.has("event_id") or isinstance(offsets, int)
    numbers = frame.sequences() if numbered else np.asarray(offsets, np.int64)
    shift = int.from_bytes(hashlib.blake2b(frame.run.encode(), digest_size=4).digest(), "big")
    return frame.timestamps() * 1000 + (numbers + shift) % measurement.spread_ns


def _lines(frame: Frame, measurement: Measurement, times_ns: NDArray[np.int64], rows: NDArray[np.int64]) -> Lines:
    tags = {name: frame.column(name) for name in sorted(measurement.tags) if frame.has(name)}
    fields = {name: frame.column(name) for name in measurement.fields if frame.has(name)}
    return encode_points(measurement.name, tags, fields, times_ns, rows)


def encode_points(
    name: str,
    tags: Mapping[str, pa.Array],
    fields: Mapping[str, pa.Array],
    times_ns: NDArray[np.int64],
    rows: NDArray[np.int64] | None = None,
) -> Lines:
    """Points of columns; tags in the order given, which should be sorted by name."""
    rows = np.arange(len(times_ns)) if rows is None else rows
    pieces = [piece for field, column in fields.items() for piece in _field_pieces(field, column)]
    body = pc.binary_join_element_wise(*pieces, pa.scalar(",", _STRING), null_handling="skip")
    head: list[Any] = [pa.scalar(escape_tag(name), _STRING)]
    for tag, column in tags.items():
        head += [_tag_piece(tag, column)]
    there = np.asarray(pc.greater(pc.binary_length(body), 0))
    start = (
        pc.binary_join_element_wise(*head, pa.scalar("", _STRING), null_handling="skip") if len(head) > 1 else head[0]
    )
    times = pa.array(times_ns).cast(_STRING)
    space, end = pa.scalar(" ", _STRING), pa.scalar("\n", _STRING)
    texts = pc.binary_join_element_wise(start, space, body, space, times, end, pa.scalar("", _STRING))
    if there.all():
        return Lines(texts, rows)
    kept = np.flatnonzero(there)
    return Lines(texts.take(pa.array(kept)), rows[kept], len(rows) - len(kept))


def _tag_piece(name: str, column: pa.Array) -> pa.Array:
    """``,name=value`` for each row; null where the value is null or empty, for an empty tag is not allowed."""
    prefix = f",{escape_tag(name)}="
    if column.type == TEXT:
        texts = [None if not text else prefix + escape_tag(text) for text in column.dictionary.to_pylist()]
        return pa.array(texts, _STRING).take(column.indices)
    if pa.types.is_string(column.type):
        return _tag_piece(name, column.dictionary_encode())
    texts = column.cast(_STRING)
    return pc.binary_join_element_wise(pa.scalar(prefix, _STRING), texts, pa.scalar("", _STRING))


def _field_pieces(name: str, column: pa.Array) -> Iterable[pa.Array]:
    """``name=value`` for each row, null where there is nothing to store; a list gives one field an element."""
    label = escape_tag(name)
    kind = column.type
    if pa.types.is_list(kind):
        yield from _list_pieces(label, column)
        return
    if kind == TEXT:
        texts = [None if text is None else f"{label}={_quoted(text)}" for text in column.dictionary.to_pylist()]
        yield pa.array(texts, _STRING).take(column.indices)
        return
    if pa.types.is_string(kind):
        escaped = pc.replace_substring(pc.replace_substring(column.cast(_STRING), "\\", "\\\\"), '"', '\\"')
        yield _joined(f'{label}="', escaped, '"')
        return
    if pa.types.is_boolean(kind):
        yield _joined(f"{label}=", column.cast(_STRING), "")
        return
    if pa.types.is_integer(kind):
        yield _joined(f"{label}=", column.cast(_STRING), "i")
        return
    finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind))
    yield _joined(f"{label}=", finite.cast(_STRING), "")


def _list_pieces(label: str, column: pa.Array) -> Iterable[pa.Array]:
    widths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    for index in range(int(widths.max(initial=0))):
        rows = np.flatnonzero(widths > index)
        values = pc.list_element(column.take(pa.array(rows)), index)
        places = np.full(len(column), -1, np.int64)
        places[rows] = np.arange(len(rows))
        yield from _field_pieces(f"{label}_{index}", values.take(pa.array(places, mask=places < 0)))


def _joined(before: str, texts: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(
        pa.scalar(before, _STRING), texts, pa.scalar(after, _STRING), pa.scalar("", _STRING)
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def record_lines(
    measurement: Measurement, records: Sequence[Mapping[str, Any]], times_us: NDArray[np.int64], identity: str
) -> Lines:
    """Points of JSON records (multi events, alerts); ``identity`` names the id that keeps them apart."""
    moved = np.array([_hash(str(record.get(identity))) % measurement.spread_ns for record in records], np.int64)
    tags = {name: _text([record.get(name) for record in records]) for name in sorted(measurement.tags)}
    fields = {name: _values([record.get(name) for record in records]) for name in measurement.fields}
    return encode_points(measurement.name, tags, fields, times_us * 1000 + moved)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _text(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.utf8()).dictionary_encode()


def _values(values: Sequence[Any]) -> pa.Array:
    """Numbers as floats (an integer now and a float then would be two types), anything else as text."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return _text(values)
