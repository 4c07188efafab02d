"""Declared types, held to by the rows of frames and by single events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from astrocyte.schemas.arrow.columns import column_name, field_name
from astrocyte.schemas.catalog import FieldType, arrow_type
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.types import Nulled, misfit_reason, misfits
from astrocyte.schemas.values.foreign import MIXED_EXACT, given_values
from astrocyte.schemas.values.mixed import MIXED, TYPE_ERRORS, typed_column
from astrocyte.schemas.values.nested import non_finite_reasons
from astrocyte.schemas.values.single import distinguishing

__all__ = ["UnreadableEvent", "conforming", "enforce", "unmixed"]


class UnreadableEvent(InvalidEvent):
    """An event of a stream that cannot be used: ``row`` holds its fields, by column name where they could be read."""

    def __init__(self, reason: str, stream: str, row: Mapping[Any, Any]) -> None:
        super().__init__(reason)
        self.stream = stream
        self.row = row


def conforming(row: Mapping[str, Any], declaration: StreamDeclaration, stream: str) -> Mapping[str, Any]:
    """The fields of a row (by column name) that become null, where that is declared for values of another type.

    Raises UnreadableEvent.
    """
    types = declaration.column_types
    bad = misfits(row, types)
    if bad and declaration.on_type_error == "dead_letter":
        raise UnreadableEvent(misfit_reason(row, bad, types), stream, row)
    return dict.fromkeys(bad)


def enforce(frame: Frame, declaration: StreamDeclaration) -> tuple[Frame, dict[int, str], list[Nulled]]:
    """The rows whose fields fit the declared types, as columns of these, and the reason for each other row.

    Where the declaration lets other values become null there are no such rows; the third part lists these values. A
    field that stands at a path in JSON is a column of its own name in a frame.
    """
    refused: dict[int, str] = {}
    noted: dict[int, str] = {}
    nulled: list[Nulled] = []
    for column, kind in declaration.column_types.items():
        if frame.batch.schema.get_field_index(column) < 0:
            frame = frame.with_column(column, pa.nulls(frame.num_rows, arrow_type(kind)))
        elif frame.column(column).type != arrow_type(kind):
            given = [declaration.read_number(column, value) for value in _given(frame, column, declaration)]
            if kind == "string" and field_name(column) in declaration.identifying:
                given = [str(value) if type(value) is int else value for value in given]
            if kind == "json":
                noted = non_finite_reasons(field_name(column), given) | noted
            made, bad = _typed(given, column, kind)
            if declaration.on_type_error == "dead_letter":
                refused = bad | refused
            else:
                nulled += (Nulled(row, field_name(column), reason) for row, reason in bad.items())
            frame = frame.with_column(column, made)
    key = declaration.key.field
    if key != "key" and declaration.is_partitioned and frame.batch.schema.get_field_index(column_name(key)) < 0:
        frame = frame.with_column(column_name(key), frame.column("key"))
    return *_without(frame.noting(noted) if noted else frame, refused), nulled


def _given(frame: Frame, column: str, declaration: StreamDeclaration) -> list[Any]:
    """The values of a column as a mapping of the stream would have them."""
    found = frame.column(column)
    if found.type != MIXED_EXACT:
        return frame.values(column)
    values = given_values(found, parsed=True)
    if column not in declaration.exact_columns:
        return values
    return [value if type(value) is int else distinguishing(value) for value in values]


def unmixed(frame: Frame, types: Mapping[str, FieldType]) -> tuple[Frame, dict[int, str]]:
    """The rows whose mixed columns hold values of the types by column, as columns of these; a reason for each other."""
    refused: dict[int, str] = {}
    for name, kind in types.items():
        if frame.has(name) and frame.column(name).type == MIXED:
            values, bad = _typed(frame.values(name), name, kind)
            refused = bad | refused
            frame = frame.with_column(name, values)
    return _without(frame, refused)


def _without(frame: Frame, refused: Mapping[int, str]) -> tuple[Frame, dict[int, str]]:
    if refused:
        frame = frame.take(np.delete(np.arange(frame.num_rows), list(refused)))
    return frame, dict(sorted(refused.items()))


def _typed(values: list[Any], name: str, kind: FieldType) -> tuple[pa.Array, dict[int, str]]:
    """Column of the values, null for those of another type, and the reason for each of these."""
    bad: dict[int, str] = {}
    try:
        return typed_column(values, arrow_type(kind)), bad
    except TYPE_ERRORS:
        pass
    for row, value in enumerate(values):
        if misfits({name: value}, {name: kind}):
            bad[row] = misfit_reason({name: value}, [name], {name: kind})
            values[row] = None
    return typed_column(values, arrow_type(kind)), bad
