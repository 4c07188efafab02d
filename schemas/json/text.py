"""JSON text of events. ``NaN``, ``Infinity`` and ``-Infinity`` stand for these numbers, as many programs write them.

A number beyond the range of floats, such as 1e400, is infinite.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import usual_datetime
from astrocyte.schemas.values.single import MOST_LEVELS, is_wide, plain

__all__ = ["dumps", "integer", "loads", "nesting", "read_object", "read_value"]

_BOM: Final = b"\xef\xbb\xbf"
_BEYOND: Final = "number is infinity"
"""In the parser's error: a number such as 1e400, which no float holds. It is read as infinite."""
_MOST_DIGITS: Final = 400
"""Digits of an integer that is kept; no float has as many."""
_SAME_DIGIT: Final = bytes.maketrans(b"123456789", b"0" * 9)
_RUN: Final = b"0" * 20
"""Shorter integers have 64 bits. A run of digits is found faster than an integer."""
_WIDE: Final = re.compile(rb"(?:^|[:,\[\s])-?[1-9][0-9]{19,}\s*(?:[,}\]]|$)")


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

    Integers have all their digits, also beyond 64 bits. Raises orjson.JSONDecodeError.
    """
    try:
        value = orjson.loads(text)
        return _exact(text, value) if _has_wide(text) else value
    except orjson.JSONDecodeError as error:
        if text.startswith(_BOM):
            return loads(text[len(_BOM) :])
        if b"NaN" not in text and b"Infinity" not in text and _BEYOND not in str(error):
            raise
        try:
            body = json.loads(text, parse_int=float)
            orjson.dumps(body)  # refuses lone surrogates, which the parser above lets through
        except (ValueError, TypeError, RecursionError):
            pass
        else:
            return _exact(text, body)
        raise


def _has_wide(text: bytes) -> bool:
    """Whether a JSON text may hold an integer beyond 64 bits, which the fast parser rounds to a float."""
    return _RUN in text.translate(_SAME_DIGIT) and _WIDE.search(text) is not None


def _exact(text: bytes, value: Any) -> Any:
    """The value of a valid JSON text with all digits of its integers; as it is where it is nested too deeply."""
    try:
        return json.loads(text, parse_int=integer)
    except RecursionError:
        return value


def integer(digits: str) -> int | float:
    """The integer that decimal digits, also after a minus sign, stand for: beyond 400 digits it is infinite."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def dumps(body: Mapping[str, Any]) -> bytes:
    """A mapping as the JSON text that `loads` reads.

    Bytes are written in hexadecimal, times as ISO text, durations in microseconds, and decimal numbers as numbers.
    Raises TypeError for a value that has no JSON form.
    """
    try:
        text = orjson.dumps(body, default=_default, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        if "Integer exceeds" not in str(error):
            raise
        return json.dumps(body, default=_with_names).encode()
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
    if is_wide(value):
        return orjson.Fragment(str(int(value)))
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
        return int(value) if is_wide(value) else plain(value)
    return orjson.loads(orjson.dumps(value, default=_default))
