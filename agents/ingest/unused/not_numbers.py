"""Values that are no numbers in fields of which rules need numbers: results are null, and sums leave them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.ingest.unused.counts import kind_of, rows_by_kind
from astrocyte.agents.rules.named_fields import NumberRead
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.types import shown
from astrocyte.schemas.values.single import number_of

__all__ = ["NotNumbers", "NumberFields"]

WORDS: Final = "words"
"""Kind of text that writes no number, so that no declaration reads it as one."""


class NotNumbers(NamedTuple):
    """Rows of a frame with another value than a number in a field of which a rule needs numbers."""

    field: str
    reader: str
    """The first rule, window or statistic that reads one of them."""
    row: int
    """Row of the first of them."""
    kind: str
    """Kind of the values: text that writes a number, `WORDS`, boolean, list, object."""
    value: str
    """Its value, shortened."""
    rows: int


class NumberFields:
    """The fields of which rules need numbers, by stream. Frames in which they are numbers cost a look at a type."""

    def __init__(self) -> None:
        self._reads: dict[str, dict[str, list[NumberRead]]] = {}

    def update(self, reads: Iterable[NumberRead]) -> None:
        """Put other rules in force."""
        self._reads = {}
        for read in reads:
            for stream in read.streams:
                self._reads.setdefault(stream, {}).setdefault(read.field, []).append(read)

    def note(self, frame: Frame) -> Iterator[NotNumbers]:
        """The fields of a frame with values that are no numbers, where a rule would use them as such.

        A part of the rule's condition over the event itself that does not hold keeps a value from being used.
        """
        columns: Columns | None = None
        for name, reads in self._reads.get(frame.stream, {}).items():
            if not frame.num_rows or not frame.has(name) or kind_of(frame.column(name).type) == "number":
                continue
            column = frame.column(name)
            for kind, odd in _other_than_numbers(column).items():
                if columns is None:
                    columns = Columns.of(frame)
                used, reader = np.zeros(frame.num_rows, np.bool_), ""
                for read in reads:
                    mine = odd if read.guard is None else odd & predicate(read.guard, columns)
                    reader = reader or (read.reader if mine.any() else "")
                    used |= mine
                if reader:
                    yield from _found(frame, name, reader, kind, np.flatnonzero(used))


def _found(frame: Frame, name: str, reader: str, kind: str, rows: NDArray[np.int64]) -> Iterator[NotNumbers]:
    """What is to be said of values of one kind: of numbers that are written as text, and of other text, each."""
    values = frame.take(rows).values(name)
    kinds = [kind] * len(rows) if kind != "text" else [_kind_of_text(value) for value in values]
    for each in dict.fromkeys(kinds):
        first = kinds.index(each)
        yield NotNumbers(name, reader, int(rows[first]), each, shown(values[first]), kinds.count(each))


def _kind_of_text(value: Any) -> str:
    return "text" if number_of(str(value), whole=False) is not None else WORDS


def _other_than_numbers(column: pa.Array) -> dict[str, NDArray[np.bool_]]:
    """Flags of the rows of each kind of values but numbers, in the order of their first rows."""
    rows = rows_by_kind(column)
    flags = {}
    for kind in sorted(rows.keys() - {"number"}, key=lambda each: int(rows[each][0])):
        flags[kind] = np.zeros(len(column), np.bool_)
        flags[kind][rows[kind]] = True
    return flags
