"""Rows of frames as the columns that charts are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.pipeline.page.content.charts import Measure
from astrocyte.schemas.frames import Frame

__all__ = ["Rows", "rows_of"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one stream and run: event times, and when Kafka has them, in microseconds; frames with their lengths."""

    frames: tuple[Frame, ...]
    times_us: NDArray[np.int64]
    written_us: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[tuple[Frame, NDArray[np.int64]]]) -> Rows:
        """Frames of one stream and run, each with the Kafka time of its rows."""
        return cls(
            tuple(frame for frame, _ in parts),
            np.concatenate([frame.timestamps() for frame, _ in parts]),
            np.concatenate([written for _, written in parts]),
        )

    def groups(self, measure: Measure) -> NDArray[np.int64] | None:
        """Group or class of each row; None where there is but one group."""
        if measure.classes is not None:
            return measure.classes.of(self.numbers(measure.field or ""))
        if measure.by is None:
            return None
        known = pa.array(measure.groups, pa.utf8())
        return np.concatenate(
            [_codes(column, rows, known, begins=measure.begins) for column, rows in self._columns(measure.by)]
        )

    def strings_inside(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """Row and text of each string in the JSON lists of a field; anything else in it holds none."""
        at, found = self._inside(name, _strings_in)
        return at, found

    def numbers_inside(self, name: str) -> tuple[NDArray[np.int64], list[str], NDArray[np.float64]]:
        """Row, name and value of each number in the JSON objects of a field; anything else in it holds none."""
        at, found = self._inside(name, _numbers_in)
        return at, [each for each, _ in found], np.array([value for _, value in found], np.float64)

    def _inside(self, name: str, read: Callable[[Any], list[T]]) -> tuple[NDArray[np.int64], list[T]]:
        """Everything that ``read`` finds in the JSON values of a field, with its row."""
        parts = [each for column, rows in self._columns(name) for each in _parsed(column, rows, read)]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        return np.repeat(np.arange(len(parts)), lengths), [each for part in parts for each in part]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Values of a field; NaN where it is null, no number, or not there."""
        return np.concatenate([_numbers(column, rows) for column, rows in self._columns(name)])

    def _columns(self, name: str) -> Iterator[tuple[pa.ChunkedArray | None, int]]:
        """A field in frames in which it has one type, and the number of their rows: many small frames cost as one."""
        given = ((frame.column(name) if frame.has(name) else None, frame.num_rows) for frame in self.frames)
        for kind, same in groupby(given, lambda each: None if each[0] is None else each[0].type):
            found = list(same)
            columns = None if kind is None else pa.chunked_array([column for column, _ in found], kind)
            yield columns, sum(rows for _, rows in found)


def rows_of(frames: Iterable[tuple[Frame, NDArray[np.int64]]]) -> dict[tuple[str, str], Rows]:
    """Rows by run and stream, of frames with the Kafka times of their rows."""
    parts: dict[tuple[str, str], list[tuple[Frame, NDArray[np.int64]]]] = {}
    for frame, written_us in frames:
        if frame.num_rows:
            parts.setdefault((frame.run, frame.stream), []).append((frame, written_us))
    return {place: Rows.of(each) for place, each in parts.items()}


def _parsed(column: pa.ChunkedArray | None, rows: int, read: Callable[[Any], list[T]]) -> list[list[T]]:
    """What ``read`` finds in each row of a JSON field; strings that repeat are parsed once."""
    if column is None or not (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        return [[]] * rows
    strings = column.to_pylist()
    known: dict[str | None, list[T]] = {text: [] if text is None else read(_json(text)) for text in set(strings)}
    return [known[text] for text in strings]


def _json(text: str) -> Any:
    """The value that a text writes; None if it is no JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _strings_in(found: Any) -> list[str]:
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _numbers_in(found: Any) -> list[tuple[str, float]]:
    members = found.items() if isinstance(found, dict) else ()
    return [(name, float(each)) for name, each in members if type(each) in (int, float)]


def _codes(column: pa.ChunkedArray | None, rows: int, known: pa.Array, *, begins: bool) -> NDArray[np.int64]:
    if begins and column is not None and (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        starts = known.to_pylist()
        strings = column.to_pylist()
        places = {
            text: next((n for n, each in enumerate(starts) if (text or "").startswith(each)), -1)
            for text in set(strings)
        }
        return np.array([places[text] for text in strings], np.int64)
    if column is not None and pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
        codes = pc.index_in(column.chunk(0).dictionary.cast(pa.utf8()), known)
        found = codes.take(pa.chunked_array([chunk.indices for chunk in column.chunks]))
    elif column is not None and pa.types.is_string(column.type):
        found = pc.index_in(column, known)
    else:
        return np.full(rows, -1)
    result: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return result


def _numbers(column: pa.ChunkedArray | None, rows: int) -> NDArray[np.float64]:
    if column is None or not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return np.full(rows, np.nan)
    if column.null_count:
        column = column.cast(pa.float64())
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values
