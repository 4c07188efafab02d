"""Typed rows of results, and the same rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

import pyarrow as pa

from astrocyte.schemas.errors import AstrocyteError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["NotEnoughData", "records_of", "table_of"]

Row = TypeVar("Row", bound="DataclassInstance")

_TYPES: Final[dict[Any, Any]] = {int: pa.int64(), float: pa.float64(), str: pa.utf8(), bool: pa.bool_()}


class NotEnoughData(AstrocyteError):
    """A run whose events are too few, or of too short a time, for what was asked; says what is missing."""


def records_of(kind: type[Row], table: pa.Table) -> tuple[Row, ...]:
    """The rows of a table as objects of a dataclass, whose fields are columns of it."""
    columns = [table.column(each.name).to_pylist() for each in fields(kind)]
    return tuple(kind(*values) for values in zip(*columns, strict=True))


def table_of(kind: type[Row], rows: Iterable[Row]) -> pa.Table:
    """Objects of a dataclass as a table with a column for each field of text, a number or a truth value.

    The types are those that the dataclass declares, so that a table without rows has them too.
    """
    rows = list(rows)
    columns, hints = {}, get_type_hints(kind)
    for each in fields(kind):
        alternatives = getattr(hints[each.name], "__args__", (hints[each.name],))
        columns[each.name] = pa.array([getattr(row, each.name) for row in rows], _TYPES[alternatives[0]])
    return pa.table(columns)
