"""Batches that have the form of frames already, as those that this package writes do: there is nothing to convert."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pyarrow as pa

from astrocyte.schemas.arrow.columns import RESERVED, TEXT
from astrocyte.schemas.arrow.known import KnownSchemas
from astrocyte.schemas.arrow.stream import PLAIN_TYPES
from astrocyte.schemas.catalog import EventType

__all__ = ["IDENTIFIED", "has_columns_of", "is_usual", "is_usual_schema"]

_NEEDED: Final = {"timestamp": pa.int64(), "key": TEXT, "type": TEXT}
_IDENTIFYING: Final = {"seq": (pa.int64(),), "event_id": (pa.binary(16), pa.utf8())}
IDENTIFIED: Final = ("timestamp", *_IDENTIFYING)
"""Columns that have a value for each row."""
_HIDDEN: Final = RESERVED[len(_NEEDED) :]


def is_usual(batch: pa.RecordBatch, exact: Collection[str] | None) -> bool:
    """Whether `schemas.arrow.columns.frame_columns` would give back each column as it is, and none is wrong.

    It is so of columns of numbers, booleans and text, and of lists of these, for any ``exact``. False says nothing.
    """
    schema = batch.schema
    if not is_usual_schema(schema) or (exact is not None and "event_id" in exact):
        return False
    indices = map(schema.get_field_index, IDENTIFIED)
    return not any(batch.column(index).null_count for index in indices if index >= 0)


def is_usual_schema(schema: pa.Schema) -> bool:
    """Whether the columns of a schema have the form of frames, whatever their values."""
    return _USUAL.holds(schema)


def _has_usual_columns(schema: pa.Schema) -> bool:
    found = dict(zip(schema.names, schema.types, strict=True))
    return (
        len(found) == len(schema.names)
        and all(found.get(name) == kind for name, kind in _NEEDED.items())
        and all(found[name] in kinds for name, kinds in _IDENTIFYING.items() if name in found)
        and all(name in _IDENTIFYING or _is_usual(kind) for name, kind in found.items())
    )


def _is_usual(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return bool(pa.types.is_string(kind.value_type))
    if pa.types.is_list(kind):
        kind = kind.value_type
    return kind.id in PLAIN_TYPES or bool(pa.types.is_string(kind))


_USUAL: Final = KnownSchemas(_has_usual_columns)


def has_columns_of(schema: pa.Schema, event_type: EventType, *, in_run: bool) -> bool:
    """Whether `schemas.frames.conform` has nothing to do: the columns of the type in order, then those of no event.

    Outside of a run the rows may name their own.
    """
    wanted = event_type.arrow_schema()
    return schema.equals(wanted) or _CONFORMED.holds(schema, _Same(wanted), in_run)


class _Same:
    """A schema as a key: only that object equals it."""

    __slots__ = ("_hash", "schema")

    def __init__(self, schema: pa.Schema) -> None:
        self.schema, self._hash = schema, id(schema)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.schema is self.schema


def _conforms(schema: pa.Schema, same: _Same, in_run: bool) -> bool:
    wanted = same.schema
    names, types = schema.names, schema.types
    if names == wanted.names:
        return bool(types == wanted.types)
    hidden = _HIDDEN if in_run else (*_HIDDEN, "simulation_id")
    ordered = [*wanted.names, *(name for name in hidden if name in names and name not in wanted.names)]
    return names == ordered and types[: len(wanted.types)] == wanted.types and all(field.nullable for field in schema)


_CONFORMED: Final = KnownSchemas(_conforms)
