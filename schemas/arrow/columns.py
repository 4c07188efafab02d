"""Columns of frames: their names, and the form that the columns of other writers are given."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.schemas.arrow.given import field_column, time_column, values_of
from astrocyte.schemas.arrow.stream import PLAIN_TYPES, arrow_reason
from astrocyte.schemas.errors import InvalidEvent, InvalidFrame
from astrocyte.schemas.values.foreign import MIXED_EXACT, exact_column, is_binary, kept_column, plain_column
from astrocyte.schemas.values.mixed import key_column
from astrocyte.schemas.values.nested import NON_FINITE, non_finite_reasons, python_values
from astrocyte.schemas.values.single import key_text

__all__ = ["HIDDEN", "RESERVED", "TEXT", "column_name", "field_name", "frame_column", "frame_columns", "non_finite_of"]

TEXT: Final = pa.dictionary(pa.int32(), pa.utf8())
HIDDEN: Final = ("seq", "event_id", NON_FINITE)
"""Reserved columns that are no part of an event. In rules these names are those of the event's fields."""
RESERVED: Final = ("timestamp", "key", "type", *HIDDEN)
"""Column names that are not fields of an event. A field of such a name is in a column with an underscore after it."""


def column_name(name: str) -> str:
    """Name of the column that holds a field."""
    return f"{name}_" if name in RESERVED else name


def field_name(column: str) -> str:
    """Name of the field that a column holds; the inverse of `column_name`."""
    return column[:-1] if column.endswith("_") and column[:-1] in RESERVED else column


def frame_column(name: str, values: Any) -> pa.Array:
    """A column of the values, in the form that frames have: an array of NumPy or Arrow, or a sequence.

    Numbers whose digits depend on who reads them keep these (`schemas.values.foreign.keeps_digits`). Raises
    InvalidEvent.
    """
    try:
        return _given(name, values)
    except (pa.ArrowException, ValueError, OverflowError, TypeError, InvalidEvent) as error:
        raise InvalidEvent(f"column {name!r}: {arrow_reason(error)}") from error


def _given(name: str, values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if name == "timestamp":
        return time_column(values)
    if isinstance(values, pa.Array):
        return _plain(name, values) if name in RESERVED or _is_ready(values.type) else kept_column(values)
    return _plain(name, _reserved(name, values)) if name in RESERVED else field_column(values)


def _reserved(name: str, values: Any) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        if name != "key":
            raise
    return pa.array([key_text(value) for value in values], pa.utf8())  # of several types, or beyond 64 bits


def non_finite_of(columns: Iterable[tuple[str, Any, pa.Array]]) -> dict[int, str]:
    """`non_finite_reasons` of the fields whose lists and objects became JSON text: name, what came, and the column."""
    reasons: dict[int, str] = {}
    for name, given, made in columns:
        if isinstance(given, pa.Array | pa.ChunkedArray):
            if not pa.types.is_nested(given.type) or made.type == given.type:
                continue
            given = python_values(given)
        elif isinstance(given, np.ndarray) and given.dtype.kind != "O":
            continue
        if name not in RESERVED:
            reasons = non_finite_reasons(field_name(name), values_of(given)) | reasons
    return reasons


def frame_columns(
    names: Sequence[str],
    given: Sequence[pa.Array],
    stream: str,
    exact: Collection[str] | None = (),
    typed: Collection[str] = (),
) -> list[pa.Array]:
    """Columns of another writer in the form that frames have. Raises InvalidFrame.

    Decimal numbers and bytes of the columns ``exact`` are as `schemas.values.single.distinguishing` has them; with None
    those of all fields stay as they came, for a frame that is only sent on. In the columns ``typed``, which the caller
    holds to declared types, columns of Python values stay `schemas.values.foreign.MIXED_EXACT`.
    """
    columns = []
    for name, column in zip(names, given, strict=True):
        try:
            columns.append(column if name in typed and column.type == MIXED_EXACT else _read(name, column, exact))
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise InvalidFrame(f"frame of stream {stream!r}: column {name!r} cannot be read: {error}") from error
    return columns


def _read(name: str, column: pa.Array, exact: Collection[str] | None) -> pa.Array:
    if exact is None and name not in RESERVED:
        # Arrow cannot select rows of views.
        kept = column.cast(pa.binary()) if pa.types.is_binary_view(column.type) else column
        return kept if is_binary(kept.type) else kept_column(kept)
    return exact_column(column) if exact is not None and name in exact else _plain(name, column)


def _is_ready(kind: pa.DataType) -> bool:
    """Whether a column of a type is in the form that frames have, as most are."""
    return kind.id in PLAIN_TYPES or kind == TEXT


def _plain(name: str, column: pa.Array) -> pa.Array:
    """A column in the form that frames have (`schemas.values.foreign.plain_column`)."""
    kind = column.type
    if kind.id in PLAIN_TYPES and name not in ("key", "type"):
        return column.cast(pa.int64()) if name == "seq" and pa.types.is_integer(kind) else column
    if kind == TEXT and name != "event_id":
        return column
    if pa.types.is_run_end_encoded(column.type):
        column = kept_column(column)
    if name == "event_id":
        kind = column.type
        text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_dictionary(kind)
        return column.cast(pa.utf8()) if text else column
    if name in ("key", "type") and column.type != TEXT:
        column = key_column(exact_column(column))
        return (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).cast(TEXT)
    return plain_column(column)
