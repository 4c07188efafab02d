"""Frames whose columns are those of the catalog already, as those of this version's producers are."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from astrocyte.schemas.arrow.columns import RESERVED
from astrocyte.schemas.arrow.known import KnownSchemas
from astrocyte.schemas.catalog import EventType

__all__ = ["has_columns_of"]

_HIDDEN: Final = tuple(name for name in RESERVED if name not in ("timestamp", "key", "type"))


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
