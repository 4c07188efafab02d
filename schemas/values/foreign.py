"""Columns of other writers, of any Arrow type or of any Python values, as columns that events have.

What becomes of a decimal number depends on who reads it: where it tells events apart it keeps all its digits, and in
any other field it is a float (`schemas.values.single`). So a column that a program gives (`given_column`) keeps them
until the frame is read by someone who knows the contract of its stream: `plain_column` and `exact_column`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.times import PER_UNIT
from astrocyte.schemas.values.mixed import MIXED, as_mixed, column_of, scalar_column, to_list
from astrocyte.schemas.values.nested import python_values
from astrocyte.schemas.values.single import LEAST, MOST, distinguishing, is_nested, json_text, plain

__all__ = [
    "MIXED_EXACT",
    "exact_column",
    "given_column",
    "given_values",
    "is_binary",
    "keeps_digits",
    "kept_column",
    "plain_column",
]

MIXED_EXACT: Final = pa.struct([*MIXED, ("decimal", pa.utf8()), ("json", pa.utf8())])
"""`MIXED` with two members more: the digits of decimal numbers and of integers beyond 64 bits, and the JSON text of
lists and objects, which declared types tell from text."""
_WHOLE: Final = re.compile(r"-?[0-9]{1,4000}", re.ASCII)
"""An integer that Python gave, of as many digits as Python reads."""
_MOST_ROWS: Final = 1 << 24
"""Of a run-end encoded column."""


def given_column(values: Sequence[Any]) -> pa.Array:
    """Column of Python values as `column_of` makes it, but large and decimal numbers keep their digits.

    Lists and objects stay known as such. With such values the column is `MIXED_EXACT`, and no column that events have.
    Raises as `column_of` does.
    """
    column = scalar_column(values)
    if column is not None:
        return column
    digits = [_digits(value) for value in values]
    nested = [json_text(value) if is_nested(value) else None for value in values]
    if not any(digits) and not any(nested):
        return column_of(values)
    rows = zip(digits, nested, values, strict=True)
    others = column_of([None if mine or text else value for mine, text, value in rows])
    parts = [*as_mixed(others).flatten(), pa.array(digits, pa.utf8()), pa.array(nested, pa.utf8())]
    nulls = pc.and_(others.is_null(), pc.and_(parts[-2].is_null(), parts[-1].is_null()))
    return pa.StructArray.from_arrays(parts, fields=list(MIXED_EXACT), mask=nulls if pc.any(nulls).as_py() else None)


def _digits(value: Any) -> str | None:
    while isinstance(value, Enum):
        value = value.value
    if isinstance(value, int):
        return None if LEAST <= value <= MOST else str(int(value))
    if not isinstance(value, Decimal):
        return None
    digits = str(value)
    return f"{digits}." if digits.lstrip("-").isdigit() else digits  # by the point it is no integer


def keeps_digits(kind: pa.DataType) -> bool:
    """Whether numbers in a column of a type have digits of which only its reader knows whether events keep them."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_decimal(kind)) or kind == MIXED_EXACT


def kept_column(column: pa.Array) -> pa.Array:
    """`plain_column`, except for a column that `keeps_digits`, which stays as it is."""
    if pa.types.is_run_end_encoded(column.type):
        return _run_ends_decoded(column, kept_column)
    return column if keeps_digits(column.type) else plain_column(column)


def given_values(column: pa.Array, *, parsed: bool = False) -> list[Any]:
    """The values of a column that `keeps_digits`, as Python objects with all their digits.

    Lists and objects that Python gave are their JSON text, or with ``parsed`` lists and dictionaries.
    """
    if column.type != MIXED_EXACT:
        return python_values(column)
    *others, digits, nested = column.flatten()
    mask = pc.or_(digits.is_valid(), nested.is_valid())
    values = to_list(pa.StructArray.from_arrays(others, fields=list(MIXED), mask=mask))
    for row in np.flatnonzero(np.asarray(digits.is_valid())).tolist():
        number = digits[row].as_py()
        values[row] = int(number) if _WHOLE.fullmatch(number) else Decimal(number)
    for row in np.flatnonzero(np.asarray(nested.is_valid())).tolist():
        text = nested[row].as_py()
        values[row] = orjson.loads(text) if parsed else text
    return values


def plain_column(column: pa.Array) -> pa.Array:
    """A column of any Arrow type as one that events have: numbers, booleans, dictionary-encoded text, lists, `MIXED`.

    Large and view strings become text, decimals numbers, times and durations integer microseconds (UTC), binary values
    text or hexadecimal as Kafka keys do, UUIDs and intervals of months, days and time text. Run-end encoded columns and
    unions become the values inside. Lists, structs and maps stay as they are, unless Arrow cannot select rows of them:
    then they become their JSON text. Raises ArrowInvalid if a time is out of range, or for another type.
    """
    kind = column.type
    if kind == MIXED_EXACT:
        return column_of([plain(value) for value in given_values(column)])
    if pa.types.is_run_end_encoded(kind):
        return _run_ends_decoded(column, plain_column)
    if pa.types.is_union(kind):
        return column_of(_values_of_union(column))
    if pa.types.is_nested(kind) and not _selects(kind):
        return column_of([None if value is None else json_text(value) for value in python_values(column)])
    if _is_usual(kind):
        return column
    if isinstance(kind, pa.BaseExtensionType):
        known = isinstance(kind, pa.UuidType | pa.Bool8Type)
        return column_of(column.to_pylist()) if known else plain_column(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.utf8()).dictionary_encode()
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind) or pa.types.is_date(kind):
        return _microseconds(column)
    if pa.types.is_decimal(kind) or is_binary(kind) or pa.types.is_interval(kind):
        values = [plain(value) for value in column.to_pylist()]
        if pa.types.is_decimal(kind) and kind.scale > 0:
            values = [None if value is None else float(value) for value in values]
        return column_of(values)
    raise pa.ArrowInvalid(f"values of type {kind} cannot be read; write them as numbers, text or durations")


def exact_column(column: pa.Array) -> pa.Array:
    """`plain_column` of values that distinguish events: decimal numbers keep their digits, and bytes are text.

    See `schemas.values.single.distinguishing`.
    """
    kind = column.type
    if pa.types.is_dictionary(kind) and not _is_usual(kind):
        return exact_column(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _run_ends_decoded(column, exact_column)
    if pa.types.is_decimal(kind) or kind == MIXED_EXACT or is_binary(kind):
        return column_of([distinguishing(value) for value in given_values(column)])
    return plain_column(column)


def _run_ends_decoded(column: pa.Array, read: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """The values, one a row. Arrow's own function takes few types, and a few bytes may stand for any number of rows."""
    if len(column) > _MOST_ROWS:
        raise pa.ArrowInvalid(f"a run-end encoded column has {len(column)} rows; expected at most {_MOST_ROWS}")
    rows = np.arange(column.offset, column.offset + len(column))
    return read(column.values).take(pa.array(np.searchsorted(column.run_ends, rows, side="right")))


def _values_of_union(column: pa.Array) -> list[Any]:
    """The values, each of its own type."""
    scalars = [each.value for each in column]
    found: list[Any] = [None] * len(scalars)
    for kind in {each.type for each in scalars if each is not None}:
        rows = [row for row, each in enumerate(scalars) if each is not None and each.type == kind]
        part = plain_column(pa.array([scalars[row] for row in rows], kind))
        for row, value in zip(rows, to_list(part), strict=True):
            found[row] = plain(value)
    return found


def _selects(kind: pa.DataType) -> bool:
    """Whether Arrow can select rows of a nested type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _selects(kind.storage_type)
    if pa.types.is_nested(kind):
        odd = pa.types.is_run_end_encoded(kind) or pa.types.is_union(kind)
        return not odd and all(_selects(kind.field(index).type) for index in range(kind.num_fields))
    return not (pa.types.is_string_view(kind) or pa.types.is_binary_view(kind) or pa.types.is_interval(kind))


def _is_usual(kind: pa.DataType) -> bool:
    return bool(
        (pa.types.is_primitive(kind) and not pa.types.is_temporal(kind) and not pa.types.is_float16(kind)
         and not pa.types.is_decimal(kind))
        or pa.types.is_string(kind)
        or (pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))
        or pa.types.is_null(kind)
        or pa.types.is_nested(kind)
    )  # fmt: skip


def is_binary(kind: pa.DataType) -> bool:
    """Whether the values of a type are bytes."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _microseconds(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s" if kind == pa.date32() else "ms"))
        kind = column.type
    number = column.cast(pa.int32()).cast(pa.int64()) if kind.bit_width == 32 else column.cast(pa.int64())
    factor, divisor = PER_UNIT[kind.unit]
    if divisor == 1:
        return pc.multiply_checked(number, factor)
    ticks = number.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(ticks // divisor, mask=np.asarray(number.is_null()))
