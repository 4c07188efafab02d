"""What lists, structs and maps hold: their Python values, and numbers inside them that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.times import PER_UNIT
from astrocyte.schemas.values.single import nearest_float

__all__ = [
    "NON_FINITE",
    "finite_inside",
    "first_non_finite",
    "is_finite",
    "non_finite_reason",
    "non_finite_reasons",
    "python_values",
    "reasons_column",
    "rows_not_finite",
]

NON_FINITE: Final = "astrocyte.non_finite"
"""Column of a frame until validators see it: why events are refused that held a number which is not finite inside a
list or an object, whose JSON text has null in its place. Null for other events; there is none where no event did."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_PLAIN: Final = (str, int, float, Decimal, np.generic, type(None))
"""Types of the values that columns hold as they are."""
_DAY_US: Final = 86_400 * 1_000_000


# -- Python values of columns --------------------------------------------------------------------------------------


def python_values(column: pa.Array) -> list[Any]:
    """The values as Python objects; times, dates and durations that Python's types cannot hold are integers.

    The integers are microseconds, as in plain columns (`schemas.values.foreign.plain_column`).
    """
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        return [_python_value(scalar) for scalar in column]
    return values


def _python_value(scalar: Any) -> Any:
    kind, types = scalar.type, pa.types
    if not scalar.is_valid:
        return None
    if (
        isinstance(kind, pa.BaseExtensionType)
        or types.is_dictionary(kind)
        or types.is_union(kind)
        or types.is_run_end_encoded(kind)
    ):
        return _python_value(scalar.value)
    if types.is_struct(kind):
        return {field.name: _python_value(scalar[place]) for place, field in enumerate(kind)}
    if types.is_map(kind):
        return [(_python_value(entry[0]), _python_value(entry[1])) for entry in scalar.values]
    if types.is_nested(kind):
        return [_python_value(each) for each in scalar.values]
    if not types.is_temporal(kind) or types.is_interval(kind):
        return scalar.as_py()
    number = scalar.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).as_py()
    if types.is_date(kind):
        factor, divisor = (_DAY_US, 1) if kind == pa.date32() else (1000, 1)
    else:
        factor, divisor = PER_UNIT[kind.unit]
    try:
        return scalar.as_py() if divisor == 1 else pa.scalar(number // divisor, _in_microseconds(kind)).as_py()
    except (OverflowError, ValueError):
        time_us = number * factor // divisor
        return time_us if abs(time_us) < 2**63 else float(time_us)


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")


# -- numbers that are not finite -----------------------------------------------------------------------------------


def first_non_finite(name: str, value: Any) -> tuple[str, float | Decimal | np.floating[Any]] | None:
    """The first number that is not finite in a value or inside it, with its path from ``name``; None without one."""
    waiting = [(name, value)]  # without recursion: what JSON takes may be nested more deeply than Python's calls
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, float | Decimal | np.floating):
            if not math.isfinite(value):
                return name, value
            continue
        if isinstance(value, int) and math.isinf(found := nearest_float(value)):
            return name, found
        waiting += reversed(_inside(name, value))
    return None


def _inside(name: str, value: Any) -> list[tuple[str, Any]]:
    """What a value holds, each with its path: members of mappings and data classes have names, those of lists none."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Enum):
        return [(name, value.value)]
    if isinstance(value, Mapping):
        return [(f"{name}.{inner}", each) for inner, each in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(name, each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        # JSON of data classes leaves out the members whose names begin with an underscore.
        named = (field.name for field in fields_of(value) if not field.name.startswith("_"))
        return [(f"{name}.{inner}", getattr(value, inner)) for inner in named]
    return []


def non_finite_reason(name: str, value: Any) -> str | None:
    """Why an event with this field is refused: its value, or a number inside it, is not finite. None for others."""
    found = None if _is_sound(value) else first_non_finite(name, value)
    return None if found is None else f"field {found[0]!r} is {float(found[1])}; expected a finite number"


def _is_sound(value: Any) -> bool:
    """Whether the JSON text of a value shows that all of its numbers are finite: null stands for others."""
    try:
        return b"null" not in orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # such as for a decimal number
        return False


def non_finite_reasons(name: str, values: Sequence[Any]) -> dict[int, str]:
    """By row, `non_finite_reason` of the values that columns hold as JSON text: lists, mappings and data classes."""
    if _SCALARS.issuperset(map(type, values)):
        return {}
    inside = ((row, each) for row, each in enumerate(values) if not isinstance(each, _PLAIN))
    reasons = ((row, non_finite_reason(name, value)) for row, value in inside)
    return {row: reason for row, reason in reasons if reason is not None}


def reasons_column(reasons: Mapping[int, str], rows: int) -> pa.Array:
    """The column `NON_FINITE` of a frame."""
    return pa.array([reasons.get(row) for row in range(rows)], pa.utf8()).dictionary_encode()


def is_finite(numbers: pa.Array) -> bool:
    """Whether every number of a column of floats is finite or null."""
    if numbers.null_count == 0:
        # If the sum is finite, all terms are; if it overflows, the exact test below decides.
        with np.errstate(all="ignore"):
            if np.isfinite(numbers.to_numpy().sum(dtype=np.float64)):
                return True
    return bool(pc.all(pc.is_finite(_wide(numbers)).fill_null(True)).as_py() is not False)


def rows_not_finite(column: pa.Array) -> NDArray[np.bool_] | None:
    """Flags of the rows with a number that is not finite, or inside which there is one; None if there is none."""
    kind, types = column.type, pa.types
    if types.is_floating(kind):
        if is_finite(column):
            return None
        return np.asarray(pc.invert(pc.is_finite(_wide(column))).fill_null(False))
    if not _holds_floats(kind):
        return None
    if isinstance(kind, pa.BaseExtensionType):
        return rows_not_finite(column.storage)
    if types.is_dictionary(kind):
        return rows_not_finite(column.dictionary_decode())
    if types.is_struct(kind):
        flags = [bad for bad in map(rows_not_finite, column.flatten()) if bad is not None]
        return np.logical_or.reduce(flags) if flags else None
    if types.is_map(kind):
        column = _as_lists(column)
    inside = rows_not_finite(column.flatten())
    if inside is None:
        return None
    found = np.zeros(len(column), np.bool_)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    found[np.repeat(np.arange(len(column)), lengths)[inside]] = True
    return found


def finite_inside(column: pa.Array) -> pa.Array:
    """A column of lists, structs or maps with null for each number inside it that is not finite.

    Keys of maps stay as they are, since Arrow has none that are null.
    """
    return _finite(_from_first_row(column))


def _finite(column: pa.Array) -> pa.Array:
    kind, types = column.type, pa.types
    if not _holds_floats(kind):
        return column
    if types.is_floating(kind):
        return pc.if_else(pc.is_finite(_wide(column)), column, pa.scalar(None, kind))
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _finite(column.storage))
    if types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(column.indices, _finite(column.dictionary))
    nulls = column.is_null() if column.null_count else None
    if types.is_struct(kind):
        parts = [_finite(column.field(place)) for place in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=nulls)
    if types.is_map(kind):
        return pa.MapArray.from_arrays(column.offsets, column.keys, _finite(column.items), kind, mask=nulls)
    values = _finite(column.values)
    if types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=nulls)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return type(column).from_arrays(column.offsets, column.sizes, values, type=kind, mask=nulls)
    return type(column).from_arrays(column.offsets, values, type=kind, mask=nulls)


def _from_first_row(column: pa.Array) -> pa.Array:
    """A copy that is no slice, so that offsets count from its first value."""
    return column.take(pa.array(np.arange(len(column))))


def _as_lists(column: pa.MapArray) -> pa.ListArray:
    """Maps as lists of their entries."""
    column = _from_first_row(column)
    entries = pa.StructArray.from_arrays([column.keys, column.items], names=["key", "value"])
    return pa.ListArray.from_arrays(column.offsets, entries, mask=column.is_null() if column.null_count else None)


def _holds_floats(kind: pa.DataType) -> bool:
    """Whether a type is, or has inside, one of floats; others of which Arrow cannot select rows have become text."""
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_floats(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _holds_floats(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_floats(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pa.types.is_floating(kind))


def _wide(numbers: pa.Array) -> pa.Array:
    """Floats of a type on which Arrow computes."""
    return numbers.cast(pa.float32()) if pa.types.is_float16(numbers.type) else numbers
