"""Values of expressions as columns: of one kind, or mixed; and the fields of a record batch as such.

Text stays dictionary-encoded. A row whose value is null or NaN is not ``valid``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.expressions.numbers import split_integers
from astrocyte.schemas.values.foreign import plain_column
from astrocyte.schemas.values.mixed import MIXED, column_of, members
from astrocyte.schemas.values.nested import python_values
from astrocyte.schemas.values.single import json_text

if TYPE_CHECKING:
    from astrocyte.schemas.frames import Frame

__all__ = [
    "NULL",
    "Columns",
    "Flags",
    "Mixed",
    "Operand",
    "Values",
    "bools_of",
    "exact_sums",
    "floats",
    "numbers_of",
    "of_arrow",
    "text_of",
]

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Values:
    """One column (or one constant for all rows) of numbers, booleans or text.

    ``data`` is int64, float64 or bool, or, if ``strings`` is set, the codes of these strings (-1 is null). ``valid`` is
    None if every row has a value. A constant is a 0-dimensional ``data``. Numbers for which int64 or float64 does not
    suffice are float64 ``data`` and ``low``, to be added to it; ``whole`` flags those that are integers (None: none).
    """

    data: NDArray[Any]
    valid: Flags | None = None
    strings: pa.Array | None = None
    low: NDArray[np.float64] | None = None
    whole: Flags | None = None

    @property
    def is_valid(self) -> Flags:
        """Flags of the rows that have a value, in the shape of ``data``."""
        if self.strings is not None:
            return np.asarray(self.data >= 0)
        return np.ones(self.data.shape, np.bool_) if self.valid is None else self.valid

    @property
    def is_integer(self) -> Flags:
        """Flags of the numbers that are integers; an integer and the float of the same value are equal."""
        if self.data.dtype.kind == "i":
            return np.ones((), np.bool_)
        return np.zeros((), np.bool_) if self.whole is None else self.whole

    def pair(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Numbers as pairs of float64 (see `agents.expressions.numbers`); low is None if it is 0 for all rows."""
        if self.data.dtype.kind == "i":
            high, low = split_integers(self.data.reshape(-1))
            return high.reshape(self.data.shape), None if low is None else low.reshape(self.data.shape)
        return self.data.astype(np.float64, copy=False), self.low

    def take(self, rows: NDArray[np.integer]) -> Values:
        """The values of the given rows."""
        parts = (None if each is None else each[rows] for each in (self.valid, self.low, self.whole))
        valid, low, whole = parts
        return Values(self.data[rows], valid, self.strings, low, whole)

    def to_list(self, rows: int) -> list[Any]:
        """The values of ``rows`` rows as Python objects, None where not valid."""
        if self.low is None and self.whole is None:
            return list(self._array(rows).to_pylist())
        high, low = self.pair()
        parts = (high, np.zeros(()) if low is None else low, self.is_integer, self.is_valid)
        listed = (np.broadcast_to(each, (rows,)).tolist() for each in parts)
        return [
            None if not valid else int(a) + int(b) if b or whole else a
            for a, b, whole, valid in zip(*listed, strict=True)
        ]

    def to_arrow(self, rows: int) -> pa.Array:
        """The column as an Arrow array of ``rows`` values, null where not valid."""
        if self.low is None and self.whole is None:
            return self._array(rows)
        high, low = self.pair()
        valid = self.is_valid
        if (self.is_integer | ~valid).all() and ((np.abs(high) < 2.0**63) | ~valid).all():
            integers = np.where(valid, high, 0.0).astype(np.int64)
            integers += np.int64(0) if low is None else np.where(valid, low, 0.0).astype(np.int64)
            return Values(integers, self.valid)._array(rows)
        return column_of(self.to_list(rows))

    def _array(self, rows: int) -> pa.Array:
        data = np.broadcast_to(self.data, (rows,))
        if self.strings is not None:
            return pa.DictionaryArray.from_arrays(pa.array(data, mask=data < 0), self.strings)
        return pa.array(data, mask=None if self.valid is None else ~np.broadcast_to(self.valid, (rows,)))


@dataclass(frozen=True, slots=True)
class Mixed:
    """A column with values of several kinds: in each row at most one part is valid."""

    numbers: Values | None
    text: Values | None
    bools: Values | None

    @property
    def parts(self) -> tuple[Values, ...]:
        """The parts that there are; at least two."""
        return tuple(each for each in (self.numbers, self.text, self.bools) if each is not None)

    @property
    def is_valid(self) -> Flags:
        """Flags of the rows that have a value."""
        return reduce(np.logical_or, [part.is_valid for part in self.parts])

    def take(self, rows: NDArray[np.integer]) -> Mixed:
        """The values of the given rows."""
        return Mixed(*(None if each is None else each.take(rows) for each in (self.numbers, self.text, self.bools)))

    def to_list(self, rows: int) -> list[Any]:
        """The values of ``rows`` rows as Python objects, None where not valid."""
        lists = [part.to_list(rows) for part in self.parts]
        return [next((value for value in row if value is not None), None) for row in zip(*lists, strict=True)]

    def to_arrow(self, rows: int) -> pa.Array:
        """The column as an Arrow array of ``rows`` values."""
        return column_of(self.to_list(rows))


Operand = Values | Mixed
NULL: Final = Values(np.zeros(()), np.zeros((), np.bool_))
"""Null in all rows."""


def numbers_of(values: Operand) -> Values | None:
    """The numbers among the values; None if there is none."""
    if isinstance(values, Mixed):
        return values.numbers
    return values if values.strings is None and values.data.dtype != np.bool_ else None


def text_of(values: Operand) -> Values | None:
    """The text among the values; None if there is none."""
    if isinstance(values, Mixed):
        return values.text
    return None if values.strings is None else values


def bools_of(values: Operand) -> Values | None:
    """The booleans among the values; None if there is none."""
    if isinstance(values, Mixed):
        return values.bools
    return values if values.strings is None and values.data.dtype == np.bool_ else None


class Columns:
    """Fields of one record batch by name, each converted once."""

    def __init__(self, column: Callable[[str], pa.Array | Operand | None], rows: int) -> None:
        self._column = column
        self._values: dict[str, Operand] = {}
        self.rows = rows

    @classmethod
    def of(cls, frame: Frame) -> Columns:
        """The fields of a frame."""
        return cls(lambda name: frame.column(name) if frame.has(name) else None, frame.num_rows)

    def __getitem__(self, name: str) -> Operand:
        values = self._values.get(name)
        if values is None:
            found = self._column(name)
            if found is None:
                values = _null(self.rows)
            else:
                values = found if isinstance(found, Values | Mixed) else of_arrow(found)
            self._values[name] = values
        return values

    def subset(self, rows: NDArray[np.int64]) -> Columns:
        """The same fields, for the given rows only."""
        return _Subset(self, rows)


class _Subset(Columns):
    def __init__(self, whole: Columns, taken: NDArray[np.int64]) -> None:
        super().__init__(lambda _: None, len(taken))
        self._whole = whole
        self._taken = taken

    def __getitem__(self, name: str) -> Operand:
        values = self._values.get(name)
        if values is None:
            values = self._values[name] = self._whole[name].take(self._taken)
        return values


def _null(rows: int) -> Values:
    return Values(np.zeros(rows), np.zeros(rows, np.bool_))


def of_arrow(array: pa.Array) -> Operand:
    """The values of a column of any type; lists, structs and maps are read as their JSON text."""
    kind = array.type
    if kind == MIXED:
        return _of_mixed(array)
    if pa.types.is_string(kind):
        array = array.dictionary_encode()
        kind = array.type
    if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        return _of_text(array)
    valid = None if array.null_count == 0 else np.asarray(array.is_valid())
    if pa.types.is_integer(kind):
        return _of_integers((array if valid is None else array.fill_null(0)).to_numpy(), valid)
    if pa.types.is_boolean(kind):
        return Values((array if valid is None else array.fill_null(False)).to_numpy(zero_copy_only=False), valid)
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return floats(array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False))
    if pa.types.is_null(kind):
        return _null(len(array))
    if pa.types.is_nested(kind):
        strings = [None if value is None else json_text(value) for value in python_values(array)]
        return of_arrow(pa.array(strings, pa.utf8()))
    return of_arrow(plain_column(array))


def _of_text(array: pa.Array) -> Values:
    codes = array.indices
    data = codes.to_numpy() if codes.null_count == 0 else codes.fill_null(-1).to_numpy()
    if array.dictionary.null_count:
        data = np.where(np.asarray(array.dictionary.is_null())[data], -1, data)
    if len(array.dictionary) > 2 * len(array) + 64:  # a slice of a large dictionary: test only what occurs
        used, data = np.unique(data, return_inverse=True)
        none = int(len(used) > 0 and used[0] < 0)
        return Values(data.astype(np.int32) - none, strings=array.dictionary.take(pa.array(used[none:])))
    return Values(data, strings=array.dictionary)


def _of_integers(numbers: NDArray[Any], valid: Flags | None) -> Values:
    if numbers.dtype == np.uint64 and len(numbers) and int(numbers.max()) >= 2**63:
        high, low = split_integers(numbers)
        return Values(high, valid, low=low, whole=np.ones(len(high), np.bool_))
    return Values(numbers.astype(np.int64, copy=False), valid)


def floats(data: NDArray[np.float64], valid: Flags | None = None, whole: Flags | None = None) -> Values:
    """Numbers in which NaN is null."""
    finite = ~np.isnan(data)
    if finite.all():
        return Values(data, valid, whole=whole)
    return Values(data, finite if valid is None else finite & valid, whole=whole)


def exact_sums(high: NDArray[np.float64], low: NDArray[np.float64], whole: Flags | None) -> Values:
    """Sums that `agents.expressions.numbers.accumulate` kept, as `sum_of_pair` reads one; ``whole``: of integers."""
    with np.errstate(invalid="ignore"):
        fits = (high > -(2.0**63)) | ((high == -(2.0**63)) & (low >= 0.0))
        fits &= (high < 2.0**64) | ((high == 2.0**64) & (low < 0.0))
        exact = fits & (low == np.floor(low)) & (high == np.floor(high))
    rest = np.where(exact, low, 0.0)
    found = floats(high, whole=None if whole is None else whole & exact)
    return Values(found.data, found.valid, None, rest if rest.any() else None, found.whole)


def _of_mixed(array: pa.Array) -> Operand:
    parts = members(array)
    rows = len(array)
    text = parts.pop("text", None)
    bools = parts.pop("bool", None)
    numbers = [of_arrow(part) for part in parts.values()]
    kinds = [
        None if not numbers else _numbers_of_parts(numbers, rows),  # type: ignore[arg-type]
        None if text is None else of_arrow(text),
        None if bools is None else of_arrow(bools),
    ]
    there = [each for each in kinds if each is not None]
    if not there:
        return _null(rows)
    return there[0] if len(there) == 1 else Mixed(*kinds)  # type: ignore[arg-type]


def _numbers_of_parts(parts: list[Values], rows: int) -> Values:
    """One column of numbers from columns whose valid rows exclude one another."""
    if len(parts) == 1:
        return parts[0]
    data, lows = np.zeros(rows), np.zeros(rows)
    valid, whole = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    for part in parts:
        high, low = part.pair()
        mine = part.is_valid
        np.copyto(data, high, where=mine)
        if low is not None:
            np.copyto(lows, low, where=mine)
        valid |= mine
        whole |= mine & part.is_integer
    return Values(data, None if valid.all() else valid, None, lows if lows.any() else None, whole)
