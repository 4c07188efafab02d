"""Columns whose values keep their own types, whichever values stand beside them.

A column whose values have one type is an ordinary Arrow column. Values of several types (a number beside text, an
integer beside a fraction) make a column of type `MIXED`: a struct with a member for each type, of which a row has at
most one; a row without any is null. It survives IPC, take, filter and concatenation, and other programs can read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.values.nested import python_values
from astrocyte.schemas.values.single import (
    LEAST,
    MOST,
    distinguishing,
    is_nested,
    json_text,
    key_text,
    nearest_float,
    plain,
)  # fmt: skip

__all__ = [
    "MIXED",
    "TYPE_ERRORS",
    "as_mixed",
    "column_of",
    "concat_columns",
    "fits",
    "is_null",
    "key_column",
    "members",
    "scalar_column",
    "to_list",
    "typed_column",
]

MIXED: Final = pa.struct(
    [("int", pa.int64()), ("uint", pa.uint64()), ("float", pa.float64()), ("text", pa.utf8()), ("bool", pa.bool_())]
)
"""``uint`` holds integers from 2**63 on; ``int`` all others."""
_OF_JSON: Final = frozenset({str, bool, float, type(None), int, list, dict})


# -- columns of Python values --------------------------------------------------------------------------------------


def column_of(values: Sequence[Any]) -> pa.Array:
    """Column of Python values, each of its own type: typed where all have one type, otherwise `MIXED`.

    Text is dictionary-encoded; without values the column is float64. Raises UnicodeEncodeError for a lone surrogate.
    """
    column = scalar_column(values)
    return column_of([plain(value) for value in values]) if column is None else column


def scalar_column(values: Sequence[Any]) -> pa.Array | None:
    """`column_of` values that events hold as they are; None if there is any other, or an integer beyond 64 bits."""
    kinds = set(map(type, values))
    kinds.discard(type(None))
    if len(kinds) <= 1:
        if not kinds or kinds == {float}:
            return pa.array(values, pa.float64())
        if kinds == {str}:
            return pa.array(values, pa.utf8()).dictionary_encode()
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
    if not kinds <= _SCALARS:
        return None
    if kinds == {int}:
        try:
            return pa.array(values, pa.int64())
        except (pa.ArrowInvalid, OverflowError):
            pass  # some need 64 bits without a sign, or more
    if int in kinds and any(type(value) is int and not LEAST <= value <= MOST for value in values):
        return None
    return _mixed(values, kinds)


TYPE_ERRORS: Final = (pa.ArrowException, OverflowError, TypeError, UnicodeError)
"""What `typed_column` raises for values of another type."""


def typed_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Python values as a column of a declared type, without loss, except that floats hold the nearest of their numbers.

    Raises one of `TYPE_ERRORS` for a value that is none of the type.
    """
    kinds = set(map(type, values))
    if not kinds <= _OF_JSON:
        # Arrow would cut off the fraction of a Decimal, and does not take a datetime or a NumPy value for every type.
        read = _whole if pa.types.is_integer(kind) else plain
        values = [value if type(value) in _OF_JSON or is_nested(value) else read(value) for value in values]
        kinds = set(map(type, values))
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    if kind == pa.utf8():
        return pa.array([None if value is None else json_text(value) for value in values], kind)
    if pa.types.is_list(kind):
        if not kinds.isdisjoint((str, dict)):
            raise TypeError("expected a list, got text or an object")  # of which Arrow takes the empty ones
        values = [None if value is None else _numbers(value) for value in values]
    if bool in kinds and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise TypeError("expected a number, got a boolean")
    if float in kinds and pa.types.is_integer(kind):
        if not all(value % 1 == 0 for value in values if value is not None):
            raise TypeError("expected a whole number, got a fraction")
        if any(type(value) is float and value == LEAST for value in values):
            # Readers of JSON round integers below the range of int64 to this float, which would pass as the least one.
            raise OverflowError("expected an integer of 64 bits, got a float at or below their least")
    if int in kinds and pa.types.is_floating(kind):
        # Arrow refuses integers from 2**53 (of float32: 2**24) on, also those that the type holds.
        values = [nearest_float(value) if type(value) is int else value for value in values]
    column = pa.array(values, kind)
    if kind == pa.float32() and pc.any(pc.is_inf(column)).as_py():
        infinite = np.asarray(pc.is_inf(column).fill_null(False))
        if any(math.isfinite(values[row]) for row in np.flatnonzero(infinite).tolist()):
            raise OverflowError("expected a number of 32 bits, got a larger one")
    return column


def _numbers(values: Sequence[Any] | NDArray[Any]) -> Sequence[Any] | NDArray[Any]:
    """The members of a list for a column of lists of floats, of which Arrow takes booleans and not all numbers."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "f":
            return values
        values = values.tolist()
    kinds = set(map(type, values))
    if kinds <= {float, type(None)}:
        return values
    found = [value if type(value) in _OF_JSON or is_nested(value) else plain(value) for value in values]
    if bool in set(map(type, found)):
        raise TypeError("expected a list of numbers, got one with a boolean")
    return [nearest_float(value) if type(value) is int else value for value in found]


def _whole(value: Any) -> Any:
    """A value for a column of integers, which hold more digits of a decimal number than a float does."""
    return plain(distinguishing(value))


def fits(value: Any, kind: pa.DataType) -> bool:
    """Whether `typed_column` takes a value; of most values of events this is known without making a column."""
    if value is None or (kind in _SURE.get(type(value), ()) and _is_ordinary(value)):
        return True
    try:
        typed_column([value], kind)
    except TYPE_ERRORS:
        return False
    return True


_SCALARS: Final = frozenset({int, float, str, bool})
_SURE: Final[Mapping[type, tuple[pa.DataType, ...]]] = {
    float: (pa.float64(),), int: (pa.int64(), pa.float64()), bool: (pa.bool_(),),
    str: (pa.dictionary(pa.int32(), pa.utf8()), pa.utf8()),
}  # fmt: skip
"""Types of columns that hold every ordinary value of a Python type."""


def _is_ordinary(value: float | str) -> bool:
    """Whether a text has no lone surrogate, and an integer is one that float64 holds."""
    return value.isascii() if isinstance(value, str) else not isinstance(value, int) or abs(value) <= 2**53


def _mixed(values: Sequence[Any], kinds: set[type]) -> pa.Array:
    parts: dict[str, pa.Array] = {}
    for name, kind in (("float", float), ("text", str), ("bool", bool)):
        if kind in kinds:
            chosen = [value if type(value) is kind else None for value in values]
            parts[name] = pa.array(chosen, MIXED.field(name).type)
    if int in kinds:
        whole = [value if type(value) is int else None for value in values]
        try:
            parts["int"] = pa.array(whole, pa.int64())
        except (pa.ArrowInvalid, OverflowError):
            parts["int"] = pa.array([None if each is None or each >= 2**63 else each for each in whole], pa.int64())
            parts["uint"] = pa.array([None if each is None or each < 2**63 else each for each in whole], pa.uint64())
    return _struct(parts, len(values))


def _struct(parts: Mapping[str, pa.Array], rows: int) -> pa.Array:
    arrays = [parts.get(field.name) for field in MIXED]
    arrays = [pa.nulls(rows, field.type) if each is None else each for each, field in zip(arrays, MIXED, strict=True)]
    nulls = _all([part.is_null() for part in parts.values()], rows)
    return pa.StructArray.from_arrays(arrays, fields=list(MIXED), mask=nulls)


def _all(flags: Sequence[pa.Array], rows: int) -> pa.Array | None:
    """Flags of the rows that all have; None if there is no such row."""
    if not flags:
        return pa.array(np.ones(rows, np.bool_))
    found = np.logical_and.reduce([each.to_numpy(zero_copy_only=False) for each in flags])
    return pa.array(found) if found.any() else None


# -- reading ---------------------------------------------------------------------------------------------------------


def members(column: pa.Array) -> dict[str, pa.Array]:
    """Members of a `MIXED` column that have values, by name; each null where a row's value has another type."""
    parts = zip((field.name for field in MIXED), column.flatten(), strict=True)
    return {name: part for name, part in parts if part.null_count < len(part)}


def is_null(column: pa.Array) -> pa.Array:
    """Flags of the rows without a value; NaN is a value."""
    if column.type != MIXED:
        return column.is_null()
    nulls = _all([part.is_null() for part in members(column).values()], len(column))
    return pa.array(np.zeros(len(column), np.bool_)) if nulls is None else nulls


def to_list(column: pa.Array) -> list[Any]:
    """The values as Python objects, each in its own type."""
    if column.type != MIXED:
        return python_values(column)
    found: list[Any] = [None] * len(column)
    for part in members(column).values():
        rows = np.flatnonzero(np.asarray(part.is_valid()))
        for row, value in zip(rows.tolist(), part.drop_null().to_pylist(), strict=True):
            found[row] = value
    return found


def key_column(column: pa.Array) -> pa.Array:
    """A column's values as keys (see `key_text`): a dictionary-encoded or plain column of text."""
    kind = column.type
    if pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.cast(pa.utf8())
    if pa.types.is_floating(kind):
        encoded = column.dictionary_encode()
        strings = pa.array([key_text(value) for value in encoded.dictionary.to_pylist()], pa.utf8())
        return strings.take(encoded.indices)
    return pa.array([key_text(value) for value in to_list(column)], pa.utf8())


# -- combining -------------------------------------------------------------------------------------------------------


def concat_columns(columns: Sequence[pa.Array]) -> pa.Array:
    """Columns one after the other; of different types they make a `MIXED` one."""
    columns = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in columns]
    kinds = {each.type for each in columns if not pa.types.is_null(each.type)}
    if len(kinds) > 1:
        return pa.concat_arrays([as_mixed(each) for each in columns])
    kind = kinds.pop() if kinds else pa.float64()
    return pa.concat_arrays([pa.nulls(len(each), kind) if pa.types.is_null(each.type) else each for each in columns])


def as_mixed(column: pa.Array) -> pa.Array:
    """A column that events have as a `MIXED` one."""
    kind = column.type
    if kind == MIXED:
        return column
    if pa.types.is_null(kind):
        return pa.nulls(len(column), MIXED)
    if kind == pa.uint64():
        large = pc.greater_equal(column, pa.scalar(2**63, pa.uint64()))
        none = pa.scalar(None, pa.uint64())
        small = pc.if_else(large, none, column).cast(pa.int64())
        return _struct({"int": small, "uint": pc.if_else(large, column, none)}, len(column))
    for name, test in (("int", pa.types.is_integer), ("float", pa.types.is_floating), ("bool", pa.types.is_boolean),
                       ("text", pa.types.is_string)):  # fmt: skip
        if test(kind):
            return _struct({name: column.cast(MIXED.field(name).type)}, len(column))
    strings = pa.array([None if value is None else json_text(value) for value in python_values(column)], pa.utf8())
    return _struct({"text": strings}, len(column))
