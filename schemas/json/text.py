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
from astrocyte.schemas.values.single import MOST_DIGITS, MOST_LEVELS, bytes_text, number_text, plain

__all__ = [
    "dumps",
    "fraction",
    "has_long_fraction",
    "integer",
    "loads",
    "loads_exact",
    "nesting",
    "read_object",
    "read_value",
]

_BOM: Final = b"\xef\xbb\xbf"
_BEYOND: Final = "number is infinity"
"""In the parser's error: a number such as 1e400, which no float holds. It is read as infinite."""
_SAME_DIGIT: Final = bytes.maketrans(b"123456789", b"0" * 9)
_RUNS: Final = (b"0" * 20, b"-" + b"0" * 19)
"""Shorter integers have 64 bits, of negative ones only those to -2**63. Runs are found faster than integers."""
_WIDE: Final = re.compile(rb"(?:^|[:,\[\s])(?:-9[0-9]{18}|-?[1-9][0-9]{19,})\s*(?:[,}\]]|$)")
_SURE_DIGITS: Final = 15
"""Digits of a decimal number that the nearest float has all."""
_LONG: Final = re.compile(rb"[0-9.]{%d,}(?:[eE][+-]?[0-9]+)?" % (_SURE_DIGITS + 2))


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
    digits = text.translate(_SAME_DIGIT)
    return (_RUNS[0] in digits or _RUNS[1] in digits) and _WIDE.search(text) is not None


def _exact(text: bytes, value: Any) -> Any:
    """The value of a valid JSON text with all digits of its integers; as it is where it is nested too deeply."""
    try:
        return json.loads(text, parse_int=integer)
    except RecursionError:
        return value


def integer(digits: str) -> int | float:
    """The integer that decimal digits, also after a minus sign, stand for: beyond 400 digits it is infinite."""
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def has_long_fraction(text: bytes) -> bool:
    """Whether a JSON text may hold a number with a fraction that no float is."""
    return any(map(_is_no_float, _LONG.findall(text)))


def _is_no_float(found: bytes) -> bool:
    # Most long numbers are the digits of a float, as another program wrote them, or a part of text.
    digits = found.decode()
    if digits.isdecimal():
        return False
    try:
        return repr(float(digits)) != digits and isinstance(fraction(digits), Decimal)
    except ValueError:
        return False


def loads_exact(text: bytes) -> Any:
    """`loads` with all digits of numbers with a fraction too: see `fraction`. Slow; for what tells events apart."""
    value = loads(text)
    if not has_long_fraction(text):
        return value
    try:
        return json.loads(text, parse_int=integer, parse_float=fraction)
    except RecursionError:
        return value


def fraction(digits: str) -> float | Decimal:
    """The number that decimal digits with a point or an exponent stand for: a float, or a `Decimal` that is no float.

    The 17 digits that many programs write of every float, such as 0.10000000000000001, are that float.
    """
    number = float(digits)
    if not _SURE_DIGITS + 1 < len(digits) <= MOST_DIGITS or not number or not math.isfinite(number):
        return number
    exact = Decimal(digits)
    if exact in (Decimal(repr(number)), Decimal(f"{number:.17g}")):
        return number
    sign, figures, exponent = exact.as_tuple()
    if isinstance(exponent, int) and exponent >= 0:  # with a figure after the point it is no integer, as in `loads`
        return Decimal((sign, (*figures, *[0] * (exponent + 1)), -1))
    return exact


def dumps(body: Mapping[str, Any]) -> bytes:
    """A mapping as the JSON text that `loads` reads.

    Bytes are written as text or in hexadecimal, as a Kafka key is read, times as ISO text, durations in microseconds,
    and decimal numbers as numbers with all their digits.
    Raises TypeError for a value that has no JSON form.
    """
    try:
        text = orjson.dumps(body, default=_default, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        if "Integer exceeds" not in str(error):
            raise
    else:
        if b"null" not in text or _is_finite(body):  # it writes null for what is not finite
            return text
    return orjson.dumps(_spelt(body), default=_default, option=orjson.OPT_SERIALIZE_NUMPY)


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
        return bytes_text(bytes(value))
    if isinstance(value, Decimal):
        text = number_text(value)
        return plain(value) if text is None else orjson.Fragment(text)
    if isinstance(value, timedelta):
        return plain(value)
    if isinstance(value, datetime):
        return usual_datetime(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _spelt(value: Any) -> Any:
    """The value with the text of numbers that the writer does not write: integers beyond 64 bits, NaN and Infinity."""
    if isinstance(value, Mapping):
        return {name: _spelt(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _spelt(value.tolist()) if value.dtype.kind == "f" else value
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return orjson.Fragment(json.dumps(float(value)))
    digits = number_text(value) if isinstance(value, int) else None
    return value if digits is None else orjson.Fragment(digits)
