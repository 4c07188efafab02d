"""Kafka Connect's JSON with its schema: decimal numbers, which it writes as base64 bytes, as numbers.

Without the schema (``schemas.enable=false``) nothing tells such bytes from text. Sources of the forms:
org.apache.kafka.connect.data.Decimal (big-endian two's complement, times ten to the minus scale, which is a parameter
of the schema) and io.debezium.data.VariableScaleDecimal (a structure of ``scale`` and ``value``).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.values.single import MOST_LEVELS, shortest_float

__all__ = ["with_decimals"]

_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_VARIABLE: Final = "io.debezium.data.VariableScaleDecimal"
_MOST_SCALE: Final = 1_000
"""Digits after the point, either way: databases have at most some hundreds."""
_EXACT: Final = 10**15
"""Decimals of at most 15 digits have different nearest floats, whose shortest text they are."""


def with_decimals(value: Any, schema: Any) -> Any:
    """The value with the decimals that its Connect schema describes as numbers; what has none is the same object.

    A decimal is an integer where its scale is 0, otherwise the nearest float, or a `Decimal` where it has digits that
    no float has, which it needs as a key. Raises InvalidEvent for bytes that are no decimal.
    """
    return _read(value, schema, "", 0)


def _read(value: Any, schema: Any, name: str, depth: int) -> Any:
    if value is None or not isinstance(schema, Mapping) or depth > MOST_LEVELS:
        return value
    kind, logical = schema.get("type"), schema.get("name")
    if logical == _DECIMAL:
        parameters = schema.get("parameters")
        return _number(value, parameters.get("scale") if isinstance(parameters, Mapping) else None, name)
    if logical == _VARIABLE and isinstance(value, Mapping):
        return _number(value.get("value"), value.get("scale"), name)
    if kind == "struct" and isinstance(value, Mapping):
        fields = schema.get("fields")
        changed = {}
        for field in fields if isinstance(fields, list) else ():
            inner = field.get("field") if isinstance(field, Mapping) else None
            if isinstance(inner, str) and value.get(inner) is not None:
                found = _read(value[inner], field, inner, depth + 1)
                if found is not value[inner]:
                    changed[inner] = found
        return {**value, **changed} if changed else value
    if kind == "array" and isinstance(value, list):
        read = [_read(each, schema.get("items"), name, depth + 1) for each in value]
        return read if any(new is not old for new, old in zip(read, value, strict=True)) else value
    return value


def _number(value: Any, scale: Any, name: str) -> int | float | Decimal:
    try:
        digits = int(scale)
        if abs(digits) > _MOST_SCALE:
            raise ValueError(scale)
        unscaled = int.from_bytes(b64decode(value, validate=True), "big", signed=True)
        if digits <= 0:
            return unscaled * int(10**-digits)
        # Division of integers rounds once, to the nearest float; a quotient that no float holds raises.
        nearest: float = unscaled / 10**digits
        if abs(unscaled) < _EXACT:
            return nearest
        exact = Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -digits))
        return exact if shortest_float(exact) is None else nearest
    except (TypeError, ValueError, OverflowError):
        raise InvalidEvent(
            f"field {name!r} is {value!r:.80} with the scale {scale!r:.20}; expected the base64 text of a decimal's "
            "bytes and its scale, as its Connect schema says"
        ) from None
