"""Columns that a program gives to a frame: sequences, arrays of NumPy, and the columns of pandas and Polars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import time, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import NEVER_US, time_us, us_from_numpy
from astrocyte.schemas.values.foreign import given_column, plain_column
from astrocyte.schemas.values.nested import python_values
from astrocyte.schemas.values.single import plain

__all__ = ["field_column", "time_column", "values_of"]

_OF_ARROW: Final = ("s", "ms", "us", "ns", "D")
"""Units of NumPy's times that Arrow has."""
_KINDS: Final = ("M", "i", "u")
"""Kinds of the types of times and integers."""
_NO_TIMES: Final = (bool, np.bool_, timedelta, np.timedelta64, time)
"""Types whose values are numbers as fields, but no points in time."""


def field_column(values: Any) -> pa.Array:
    """Column of the values of a field, in the form that frames have, or `MIXED_EXACT` (`given_column`).

    NaN is null where pandas writes a missing value so beside values that are no numbers: in text, categories, objects.
    """
    if isinstance(values, np.ndarray):
        if values.ndim == 1 and values.dtype.kind in "biuf":
            return pa.array(values)
        if values.dtype.kind in "Mm":
            return _numpy_times(values)
        if values.dtype.kind not in "OUS":
            return plain_column(pa.array(values))
    return given_column(values_of(values))


def time_column(values: Any) -> pa.Array:
    """Column ``timestamp`` of the values: int64 microseconds since 1970 (UTC), `NEVER_US` where there is no time.

    Numbers are microseconds, of which a fraction is cut; times of NumPy, pandas, Polars, Arrow and Python are
    themselves, whatever their unit, and text is read as in mappings (`schemas.times.time_us`). A time without a zone is
    in UTC. Raises InvalidEvent, with its row, for a value that is no time.
    """
    column, dtype = values, getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and not np.ma.isMaskedArray(values):
        column = np.asarray(values)  # also those of pandas and JAX
        if dtype.kind == "i":
            return pa.array(np.ascontiguousarray(column, dtype=np.int64))
    if isinstance(column, np.ndarray):
        kind = column.dtype.kind
        column = _numpy_times(column) if kind == "M" else list(column) if kind == "m" else column.tolist()
    elif getattr(dtype, "kind", "") in _KINDS:  # types of pandas itself: with a zone, of Arrow, with nulls
        column = pa.array(values)
    elif not hasattr(dtype, "kind") and not isinstance(values, pa.Array) and hasattr(values, "__arrow_c_stream__"):
        column = pa.chunked_array(values)  # of Polars, whose nanoseconds no datetime holds
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.Array):
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = plain_column(column)
        if pa.types.is_integer(column.type):
            return column.cast(pa.int64()).fill_null(NEVER_US)
        column = python_values(column)
    column = list(column)
    if set(map(type, column)) <= {int}:
        return pa.array(column, pa.int64())
    return pa.array([_time_us(value, row) for row, value in enumerate(column)], pa.int64())


def _time_us(value: Any, row: int) -> int:
    if isinstance(value, str):
        try:
            return time_us(value)
        except InvalidEvent as error:
            raise InvalidEvent(f"row {row}: {error}") from None
    found = None if isinstance(value, _NO_TIMES) else plain(value)
    if found is None and not isinstance(value, _NO_TIMES):
        return NEVER_US
    if isinstance(found, float) and math.isnan(found):
        return NEVER_US
    if isinstance(found, int | float) and NEVER_US <= found < -NEVER_US:
        return int(found)
    raise InvalidEvent(
        f"row {row}: {value!r} of type {type(value).__name__} is no time; expected microseconds since 1970 (UTC) as "
        "a number of 64 bits, a typed time, or ISO 8601 text"
    )


def _numpy_times(values: np.ndarray[Any, Any]) -> pa.Array:
    """Microseconds of times or durations of NumPy, null for NaT. Arrow has few of their units, and no multiples."""
    unit, count = np.datetime_data(values.dtype)
    if values.ndim != 1:
        raise pa.ArrowInvalid(f"expected an array of 1 dimension, got {values.ndim}")
    if unit in _OF_ARROW and count == 1:
        return plain_column(pa.array(values))
    if np.ma.isMaskedArray(values):
        mask = np.ma.getmaskarray(values)
        return pc.if_else(pa.array(mask), None, _numpy_times(values.data))
    return pa.array([us_from_numpy(value) for value in values], pa.int64())


def values_of(values: Any) -> Sequence[Any]:
    """The values as Python objects, those inside lists too, which Polars has as columns of their own.

    NaN is None where it stands for a missing value.
    """
    found = values.to_list() if hasattr(values, "to_list") else list(values)
    dtype = getattr(values, "dtype", None)
    if getattr(dtype, "kind", None) != "O":
        return found
    # A column of objects may be one of numbers, in which NaN is a number; in a type of pandas itself it never is one.
    if isinstance(dtype, np.dtype) and all(map(_is_number, found)):
        return found
    return [None if isinstance(value, float) and math.isnan(value) else value for value in found]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | np.number) and not isinstance(value, bool))
