"""Whole columns as JSON text, without Python objects for their values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.values.foreign import given_values, keeps_digits, plain_column
from astrocyte.schemas.values.mixed import MIXED, members
from astrocyte.schemas.values.nested import python_values
from astrocyte.schemas.values.single import is_nested, json_text, number_text, plain

__all__ = ["json_objects", "json_values"]

_TO_ESCAPE: Final = r'["\\[:cntrl:]]'
_INTEGER: Final = r"^-?[0-9]+$"


def json_values(column: pa.Array, *, parsed: bool = False) -> pa.StringArray:
    """JSON text of every value; ``null`` for nulls, and for NaN and infinities, which JSON cannot express.

    ``parsed``: the column holds JSON text, which is embedded as JSON.
    """
    if column.type == MIXED:
        parts = [_where(part, json_values(part)) for part in members(column).values()]
        return pc.coalesce(*parts, pa.array(["null"] * len(column), pa.utf8()))
    if keeps_digits(column.type) and not parsed:
        strings = [None if value is None else _with_digits(value) for value in given_values(column, parsed=True)]
        return pc.fill_null(pa.array(strings, pa.utf8()), "null")
    column = plain_column(column) if parsed else column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if parsed:
        strings = [None if text is None else _dumped(orjson.loads(text)) for text in column.to_pylist()]
    elif pa.types.is_string(column.type):
        return pc.fill_null(_quoted(column), "null")
    elif pa.types.is_floating(column.type):
        return pc.fill_null(_floating(column), "null")
    elif pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return pc.fill_null(pc.cast(column, pa.utf8()), "null")
    else:
        column = plain_column(column)
        if not pa.types.is_nested(column.type) and not pa.types.is_null(column.type):
            return json_values(column)
        strings = [None if value is None else _dumped(value) for value in python_values(column)]
    return pc.fill_null(pa.array(strings, pa.utf8()), "null")


def _where(part: pa.Array, strings: pa.StringArray) -> pa.StringArray:
    return pc.if_else(part.is_valid(), strings, pa.scalar(None, pa.utf8()))


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, str) else json_text(value)


def _with_digits(value: Any) -> str:
    """JSON text of a value, in which numbers have all their digits, and lists and objects are such."""
    if is_nested(value):
        return json_text(value)
    digits = number_text(value) if isinstance(value, int | Decimal) else None
    return _dumped(plain(value)) if digits is None else digits


def _floating(column: pa.Array) -> pa.StringArray:
    wide = pc.cast(column, pa.float64())
    text = pc.cast(wide, pa.utf8())
    # Without ".0" a whole number would be read back as an integer.
    text = pc.if_else(pc.match_substring_regex(text, _INTEGER), pc.binary_join_element_wise(text, ".0", ""), text)
    return pc.if_else(pc.is_finite(wide), text, pa.scalar(None, pa.utf8()))


def _quoted(strings: pa.StringArray) -> pa.StringArray:
    if not pc.any(pc.match_substring_regex(strings, _TO_ESCAPE)).as_py():
        return pc.binary_join_element_wise('"', strings, '"', "")
    return pa.array([None if text is None else _dumped(text) for text in strings.to_pylist()], pa.utf8())


def json_objects(members: Mapping[str, pa.StringArray | str], rows: int) -> pa.StringArray:
    """One JSON object a row. ``members`` are JSON text already: a column, or one string for all rows."""
    if not members:
        return pa.array(["{}"] * rows, pa.utf8())
    parts: list[pa.StringArray | str] = []
    opening = "{"
    for name, values in members.items():
        parts += [f"{opening}{orjson.dumps(name).decode()}:", values]
        opening = ","
    if all(isinstance(part, str) for part in parts):
        return pa.array(["".join(map(str, parts)) + "}"] * rows, pa.utf8())
    return pc.binary_join_element_wise(*parts, "}", "")
