"""Values of a record held to the types of its stream's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from astrocyte.schemas.arrow.columns import field_name
from astrocyte.schemas.catalog import NUMBERS, WHOLE, FieldType, arrow_type
from astrocyte.schemas.values.mixed import fits
from astrocyte.schemas.values.single import number_of

__all__ = ["Nulled", "misfit_reason", "misfits", "shown"]

_SHOWN: Final = 80
"""Maximum number of characters of a value in a reason."""


class Nulled(NamedTuple):
    """A value of another type than declared, which became null."""

    row: int
    field: str
    reason: str


def misfits(fields: Mapping[str, Any], types: Mapping[str, FieldType]) -> list[str]:
    """Fields whose value is not of its type."""
    return [name for name, kind in types.items() if not fits(fields.get(name), arrow_type(kind))]


def misfit_reason(fields: Mapping[str, Any], bad: list[str], types: Mapping[str, FieldType]) -> str:
    """Why a record is refused: its first field of another type, and its value."""
    name = bad[0]
    value, kind = fields[name], types[name]
    reason = f"field {field_name(name)!r} is {shown(value)}; expected {kind}"
    if isinstance(value, str) and kind in NUMBERS and number_of(value, whole=kind in WHOLE) is not None:
        reason += f"; for numbers that are written as text declare '{{type: {kind}, text: true}}'"
    return reason


def shown(value: Any) -> str:
    """A value in a reason, shortened."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
