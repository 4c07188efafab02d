"""Batches that have the form of frames already, as those that this package writes do: there is nothing to convert."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pyarrow as pa

from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.arrow.known import KnownSchemas
from astrocyte.schemas.arrow.stream import PLAIN_TYPES

__all__ = ["IDENTIFIED", "IDENTIFYING", "NEEDED", "is_usual", "is_usual_schema"]

NEEDED: Final = {"timestamp": pa.int64(), "key": TEXT, "type": TEXT}
IDENTIFYING: Final = {"seq": (pa.int64(),), "event_id": (pa.binary(16), pa.utf8())}
IDENTIFIED: Final = ("timestamp", *IDENTIFYING)
"""Columns that have a value for each row."""


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
        and all(found.get(name) == kind for name, kind in NEEDED.items())
        and all(found[name] in kinds for name, kinds in IDENTIFYING.items() if name in found)
        and all(name in IDENTIFYING or _is_usual(kind) for name, kind in found.items())
    )


def _is_usual(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return bool(pa.types.is_string(kind.value_type))
    if pa.types.is_list(kind):
        kind = kind.value_type
    return kind.id in PLAIN_TYPES or bool(pa.types.is_string(kind))


_USUAL: Final = KnownSchemas(_has_usual_columns)
