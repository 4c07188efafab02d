"""Single values as events carry them: numbers, text, booleans, and the JSON text of everything else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, DecimalException
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import is_in_calendar, iso_interval, us_from_datetime, us_from_numpy, usual_datetime

__all__ = [
    "LEAST",
    "MOST",
    "MOST_DIGITS",
    "MOST_LEVELS",
    "bytes_text",
    "distinguishing",
    "is_nested",
    "json_text",
    "key_text",
    "nearest_float",
    "number_of",
    "number_text",
    "plain",
    "shortest_float",
]

LEAST: Final = -(2**63)
MOST: Final = 2**64 - 1
"""Range of the integers that are kept exactly; an integer beyond it becomes the nearest float."""
_PLAIN: Final = frozenset({str, bool, float, type(None)})
_NESTED: Final = (Mapping, list, tuple, set, frozenset, np.ndarray)
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_NARROWED: Final = ("Integer exceeds", "numpy.datetime64")
"""In orjson's errors: values that it does not write, and `_narrowed` replaces."""
MOST_LEVELS: Final = 254
"""Nesting that orjson writes at most."""
CONTROLS: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
"""Pattern of the control characters that make a key of bytes in UTF-8 a binary one."""
_CONTROLS: Final = re.compile(CONTROLS)
MOST_DIGITS: Final = 400
"""Digits of an integer that is kept; no float has as many."""
_US: Final = timedelta(microseconds=1)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
"""As JSON is often extended by them, and as protobuf writes them in quotes."""
_MOST_EXPONENT: Final = 19
"""Power of ten of the first digit of an integer of 64 bits, at most."""


def plain(value: Any) -> int | float | str | bool | None:
    """A Python value as an event carries it: a number, text, a boolean or None.

    An integer beyond 64 bits and a decimal with a fraction become the nearest float; a point in time and a duration
    integer microseconds (UTC); bytes the text that they have as a Kafka key; a list, an object or a data class its JSON
    text; pandas' NA and NaT None. Raises TypeError for a value of another type.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return value if LEAST <= value <= MOST else nearest_float(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return plain(us_from_numpy(value))
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Enum):
        return plain(value.value)
    if kind.__name__ in ("NAType", "NaTType") and kind.__module__.startswith("pandas."):
        return None
    for simple in (bool, int, float, str):
        if isinstance(value, simple):
            return plain(simple(value))
    if isinstance(value, Decimal):
        if not value.is_finite():
            return math.nan if value.is_nan() else nearest_float(float(value))
        exponent = value.as_tuple().exponent
        whole = isinstance(exponent, int) and exponent >= 0 and LEAST <= value <= MOST
        return int(value) if whole else nearest_float(value)
    if isinstance(value, Fraction):
        return nearest_float(value)
    if isinstance(value, datetime):
        return us_from_datetime(value)
    if isinstance(value, date):
        return us_from_datetime(datetime.combine(value, time(0), UTC))
    if isinstance(value, time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    if isinstance(value, timedelta):
        return value // _US
    if isinstance(value, pa.MonthDayNano):
        return iso_interval(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes_text(bytes(value))
    if is_nested(value):
        return json_text(value)
    if isinstance(value, UUID | PurePath):
        return str(value)
    raise TypeError(f"expected a number, text, a truth value, a time, bytes, a list or a mapping, got {kind.__name__}")


def number_of(text: str, *, whole: bool) -> int | float | None:
    """The number that a text writes in decimal digits; None if it writes none, or no integer of 64 bits if ``whole``.

    An integer is exact, also as ``5.00`` or ``5e3``; any other number is the nearest float64, as in JSON. A sign,
    an exponent and blanks around the number are allowed; marks between digits are not.
    """
    text = text.strip(" \t\r\n")
    if text in _NOT_FINITE:
        return None if whole else float(text)
    if _NUMBER.fullmatch(text) is None:
        return None
    if not whole:
        return float(text)
    try:
        number = Decimal(text)
        if number.adjusted() > _MOST_EXPONENT or number != number.to_integral_value():
            return None
    except DecimalException:  # an exponent that no Decimal has
        return None
    return int(number) if LEAST <= number <= MOST else None


def is_nested(value: Any) -> bool:
    """Whether an event carries a Python value as JSON text: a list, an object, or a data class."""
    return isinstance(value, _NESTED) or (is_dataclass(value) and not isinstance(value, type))


def nearest_float(value: float | Decimal | Fraction) -> float:
    """The value as a float64; one beyond its range becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def json_text(value: Any) -> str:
    """A string unchanged, any other value as JSON, in which integers beyond 64 bits are the nearest floats.

    Raises InvalidEvent for a value that is nested too deeply, and TypeError for what JSON cannot hold.
    """
    if isinstance(value, str):
        return value
    try:
        try:
            return orjson.dumps(value, default=_json_default, option=_OPTIONS).decode()
        except TypeError as error:
            if not any(reason in str(error) for reason in _NARROWED):
                raise
            return orjson.dumps(_narrowed(value), default=_json_default, option=_OPTIONS).decode()
    except (TypeError, RecursionError) as error:
        if "recursion" not in str(error).lower():
            raise
        raise InvalidEvent(f"a value is nested too deeply; expected at most {MOST_LEVELS} levels") from None


def _narrowed(value: Any) -> Any:
    """The value with the nearest float for each integer beyond 64 bits, and integers for times that have no text."""
    if isinstance(value, np.datetime64):
        time_us = plain(value)
        return value if isinstance(time_us, int) and is_in_calendar(time_us) else time_us
    if isinstance(value, int) and not LEAST <= value <= MOST:
        return nearest_float(value)
    if isinstance(value, Mapping):
        return {name: _narrowed(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.dtype.kind == "M"):
        return [_narrowed(each) for each in value]
    return value


def _json_default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime) and plain(value) is not None:
        return usual_datetime(value)
    return list(value) if isinstance(value, set | frozenset | np.ndarray) else plain(value)


def number_text(value: int | Decimal) -> str | None:
    """The digits of a number that as a field would become another one, a float: a JSON number. None for any other.

    A decimal number with a point has one here as well, so that readers have the float and not an integer.
    """
    if isinstance(value, int):
        return None if LEAST <= value <= MOST else str(int(value))
    exact = distinguishing(value)
    if isinstance(exact, Decimal) or exact == plain(value):
        return None
    digits = str(exact)
    return f"{digits}.0" if "." not in digits and value.as_tuple().exponent < 0 else digits  # type: ignore[operator]


def shortest_float(value: Decimal) -> float | None:
    """The float whose shortest text a decimal number is; None for a number with digits that no float has."""
    nearest = float(value)
    return nearest if Decimal(repr(nearest)) == value else None


def _is_ordinary(value: Decimal) -> bool:
    """Whether a decimal number is finite, and neither larger nor smaller than floats are."""
    return value.is_finite() and abs(value.adjusted()) < MOST_DIGITS


def distinguishing(value: Any) -> Any:
    """A value as it stands in a field that distinguishes events, in which two that differ must not become one.

    Integers beyond 64 bits, and decimal numbers with more digits than a float has, are the text of their digits, bytes
    those of a Kafka key. Other decimal numbers are integers or floats, and other values are as they came.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes_text(bytes(value))
    if isinstance(value, Enum):
        return distinguishing(value.value)
    if isinstance(value, Decimal) and _is_ordinary(value):
        if value != value.to_integral_value():
            nearest = shortest_float(value)
            return format(value, "f").rstrip("0") if nearest is None else nearest
        value = int(value)
    return str(int(value)) if isinstance(value, int) and not LEAST <= value <= MOST else value


def bytes_text(value: bytes) -> str:
    """Bytes in an event: text where they are UTF-8 without control characters, else hexadecimal (``0x00ff``)."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "0x" + value.hex()
    return "0x" + value.hex() if not text.isprintable() and _CONTROLS.search(text) else text


def key_text(value: Any) -> str | None:
    """The text by which a value serves as a key or an id; None for null and NaN.

    Equal numbers have equal text, integers of any length and decimal numbers their digits; bytes are read as those of a
    Kafka key.
    """
    found = plain(distinguishing(value))
    if found is None or isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, float):
        if math.isnan(found):
            return None
        if found.is_integer():
            return str(int(found))
    return str(found)
