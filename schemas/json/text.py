"""JSON text of events. ``NaN``, ``Infinity`` and ``-Infinity`` stand for these numbers, as many programs write them.

A number beyond the range of floats, such as 1e400, is infinite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import usual_datetime
from astrocyte.schemas.values.single import LEAST, MOST, MOST_LEVELS, plain

__all__ = ["dumps", "integer", "loads", "nesting", "read_object", "read_value"]

_BOM: Final = b"\xef\xbb\xbf"
_BEYOND: Final = "number is infinity"
"""In the parser's error: a number such as 1e400, which no float holds. It is read as infinite."""
_DIGITS: Final = 20
"""An integer of 64 bits has at most this many characters."""


def nesting(text: bytes) -> int:
    """An upper bound of the levels of a JSON text: how many lists and objects begin in it."""
    return text.count(b"[") + text.count(b"{")


def read_value(text: bytes | None) -> Any:
    """The value of a JSON record of another program or of our own, which can be written again. Raises InvalidEvent."""
    try:
        value = orjson.loads(text or b"")
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"not JSON: {error}") from None
    if nesting(text or b"") > MOST_LEVELS:
        try:
            orjson.dumps(value)
        except TypeError:
            raise InvalidEvent(f"nested too deeply; expected at most {MOST_LEVELS} levels") from None
    return value


def read_object(text: bytes | None) -> dict[str, Any]:
    """The same of a record that must be an object. Raises InvalidEvent."""
    body = read_value(text)
    if not isinstance(body, dict):
        raise InvalidEvent(f"expected a JSON object, got a JSON {type(body).__name__}")
    return body


def loads(text: bytes) -> Any:
    """The value of a JSON text, also after a byte order mark; validators decide on numbers that are not finite.

    Raises orjson.JSONDecodeError.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.startswith(_BOM):
            return loads(text[len(_BOM) :])
        if b"NaN" not in text and b"Infinity" not in text and _BEYOND not in str(error):
            raise
        try:
            body = json.loads(text, parse_int=integer)
            orjson.dumps(body)  # refuses lone surrogates, which the parser above lets through
        except (ValueError, TypeError, RecursionError):
            pass
        else:
            return body
        raise


def integer(digits: str) -> int | float:
    """The number that decimal digits, also after a minus sign, stand for: beyond 64 bits the nearest float."""
    number = int(digits) if len(digits) <= _DIGITS else float(digits)
    return number if LEAST <= number <= MOST else float(digits)


def dumps(body: Mapping[str, Any]) -> bytes:
    """A mapping as the JSON text that `loads` reads.

    Bytes are written in hexadecimal, times as ISO text, durations in microseconds, and decimal numbers as numbers.
    Raises TypeError for a value that has no JSON form.
    """
    text = orjson.dumps(body, default=_default, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in text and not _is_finite(body):  # it writes null for these
        return json.dumps(body, default=_with_names).encode()
    return text


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a value are finite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return not isinstance(value, float | Decimal) or math.isfinite(value)


def _default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return "0x" + bytes(value).hex()
    if isinstance(value, Decimal | timedelta):
        return plain(value)
    if isinstance(value, datetime):
        return usual_datetime(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _with_names(value: Any) -> Any:
    """For the writer that names NaN and Infinity: what it does not know, as the other writer has it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Decimal):
        return plain(value)
    return orjson.loads(orjson.dumps(value, default=_default))
