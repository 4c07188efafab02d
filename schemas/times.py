"""Times: microseconds since 1970 (UTC) as integers, their text forms, and the value that precedes all times.

Other programs send times in a wrong unit, and such a time must still be displayed, compared and written. So only
`utc_from_us` raises on a time outside the years 1 to 9999, which are those of `datetime`.
"""

from __future__ import annotations

import math
import re
from calendar import isleap
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.errors import InvalidEvent

__all__ = [
    "CEILING_US",
    "DOUBTED_US",
    "EPOCH",
    "NEVER_US",
    "NS_FROM_US",
    "PER_UNIT",
    "TIME_NAMES",
    "TimeUnit",
    "are_event_times",
    "doubted_before_us",
    "event_time_us",
    "fitting_unit",
    "is_doubted",
    "is_in_calendar",
    "iso_from_us",
    "iso_interval",
    "iso_strings",
    "reading_of",
    "time_us",
    "unit_of",
    "us_from_datetime",
    "us_from_iso",
    "us_from_ms",
    "us_from_numpy",
    "us_of_floats",
    "usual_datetime",
    "utc_from_us",
]

TimeUnit = Literal["s", "ms", "us", "ns"]
"""Unit of a number that counts from 1970."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NEVER_US: Final = -(2**63)
"""Earlier than every time: the watermark of a source that has sent no event yet."""
CEILING_US: Final = 4_102_444_800 * 1_000_000
"""The year 2100: an event time at or after it is in the wrong unit, or its producer's clock is wrong."""
DOUBTED_US: Final = 315_532_800 * 1_000_000
"""The year 1980: an earlier event time in a declared unit is rather a number in another unit."""
NS_FROM_US: Final = 10**15
"""September 2001: an earlier time in nanoseconds of an undeclared unit is rather a count of 100 ns from another year,
as Windows (1601) and .NET (the year 1) have it, of which those of these days are read as 1974 and 1990."""

TIME_NAMES: Final = ("timestamp", "time", "ts", "event_time")
"""Members of a JSON event that hold its time: the first that is not null counts."""

_DAY_US: Final = 86_400 * 1_000_000
_FIRST_US: Final = -62_135_596_800 * 1_000_000
_AFTER_US: Final = 253_402_300_800 * 1_000_000
"""The years 1 to 9999, which `datetime` can hold."""
PER_UNIT: Final[dict[TimeUnit, tuple[int, int]]] = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
"""Microseconds in a unit, as numerator and denominator."""
_OF_NUMPY: Final[dict[str, tuple[int, int]]] = {
    "W": (7 * _DAY_US, 1), "D": (_DAY_US, 1), "h": (3_600_000_000, 1), "m": (60_000_000, 1), "s": (1_000_000, 1),
    "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000), "ps": (1, 10**6), "fs": (1, 10**9), "as": (1, 10**12),
}  # fmt: skip
"""The same for the units of NumPy that have a fixed length."""
_BOUNDS: Final[tuple[tuple[float, TimeUnit], ...]] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns"))
"""A number whose magnitude is below the bound is in this unit: the readings of one number in two units are always a
factor of 1000 apart, and only one of them lies between the years 1973 and 5138."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_MOST_CHARACTERS: Final = 400
"""Of a number in text."""
_BASIC_DATE: Final = re.compile(r"[0-9]{8}", re.ASCII)
_CLOCK: Final = r"[0-9]{2}(:?[0-9]{2}(:?[0-9]{2}([.,][0-9]+)?)?)?"
_ISO: Final = re.compile(
    r"[0-9]{4}-?([0-9]{2}-?[0-9]{2}|W[0-9]{2}(-?[0-9])?|[0-9]{3})"
    rf"([Tt ]{_CLOCK}((?P<gap> ?)(Z|[+-]{_CLOCK}))?)?",
    re.ASCII,
)
"""All of the text: `datetime.fromisoformat` ignores what stands after a NUL, and any character before a zone."""
_ORDINAL: Final = re.compile(r"^([0-9]{4})-?([0-9]{3})(?=[Tt ]|$)", re.ASCII)
_HOUR_24: Final = re.compile(r"(?<=[Tt ])24(?=(:?00(:?00([.,]0+)?)?)?(Z|z|[+-][0-9:]+)?$)", re.ASCII)
_WANTED: Final = "expected ISO 8601 text, such as 2025-09-28T10:30:00Z, or a number: s, ms, us or ns since 1970"


def utc_from_us(time_us: int) -> datetime:
    """Datetime in UTC. Raises OverflowError before the year 1 and after the year 9999."""
    return EPOCH + timedelta(microseconds=time_us)


def us_from_datetime(moment: datetime) -> int:
    """Microseconds since 1970; a datetime without a zone is taken as UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def is_in_calendar(time_us: int) -> bool:
    """Whether a time lies in the years 1 to 9999, so that it has an ISO 8601 text and a datetime."""
    return _FIRST_US <= time_us < _AFTER_US


def iso_from_us(time_us: int) -> str:
    """ISO 8601 text of microseconds since 1970 (UTC); whole seconds have no fraction. Never raises.

    A time outside the years 1 to 9999 has no such text and gives the number with its unit: ``1772359200000000000 us``.
    """
    if not is_in_calendar(time_us):
        return f"{time_us} us"
    return utc_from_us(time_us).replace(tzinfo=None).isoformat() + "Z"


def iso_strings(times_us: NDArray[np.int64]) -> list[str]:
    """`iso_from_us` of a whole column."""
    if len(times_us) and not (int(times_us.min()) >= _FIRST_US and int(times_us.max()) < _AFTER_US):
        return [iso_from_us(time_us) for time_us in times_us.tolist()]
    strings = np.datetime_as_string(times_us.view("M8[us]"), timezone="UTC").tolist()
    return [f"{text[:19]}Z" if text.endswith(".000000Z") else text for text in strings]


def us_from_iso(text: str) -> int:
    """Microseconds since 1970 of ISO 8601 text; text without a zone is taken as UTC. Raises ValueError.

    Hour 24 is midnight at the end of the day. A space may stand before the zone. The word UTC after a space, as several
    databases write it, is a zone.
    """
    plain = text[:-4] + "Z" if text.endswith(" UTC") else text[:-1] + "Z" if text.endswith("z") else text
    form = _ISO.fullmatch(plain)
    if form is None:
        raise ValueError(f"{text!r} is not ISO 8601")
    if form["gap"]:
        plain = plain[: form.start("gap")] + plain[form.end("gap") :]
    plain = _ORDINAL.sub(_calendar_date, plain, count=1)
    midnight, changed = _HOUR_24.subn("00", plain, count=1)
    return us_from_datetime(datetime.fromisoformat(midnight)) + changed * _DAY_US


def _calendar_date(ordinal: re.Match[str]) -> str:
    """The date of a year and a day of it. Raises ValueError for a day that the year does not have."""
    year, day = map(int, ordinal.groups())
    if not 1 <= day <= 365 + isleap(year):
        raise ValueError(f"the year {year} has no day {day}")
    return (date(year, 1, 1) + timedelta(days=day - 1)).isoformat()


def are_event_times(times_us: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flags of the times that an event can have: from 1970 to before `CEILING_US`."""
    return np.asarray((times_us >= 0) & (times_us < CEILING_US))


def us_from_ms(time_ms: int) -> int | None:
    """Microseconds of a Kafka timestamp; None if it is not that of an event: before 1970 (-1: none) or after 2100."""
    time_us = time_ms * 1000
    return time_us if 0 <= time_us < CEILING_US else None


def time_us(value: Any, unit: TimeUnit | None = None) -> int:
    """Microseconds since 1970 of a time as events carry it. Raises InvalidEvent.

    ISO 8601 text, a datetime, or a number, also as text (64-bit numbers are written so by protobuf and OTLP). ``unit``
    is the unit of numbers; without one their magnitude decides, text of eight digits is a date, and a number in text
    has to be a time between 1980 and 2100: others are years, months or codes. Finer digits than microseconds are cut,
    of a float those of the shortest text that stands for it.
    """
    if unit is None and (type(value) is float or type(value) is int):
        return _us_from_number(value, None, value)
    if type(value) is str:
        if _is_number(value) and (unit is not None or not _BASIC_DATE.fullmatch(value)):
            found = _us_from_number(int(value) if value.lstrip("+-").isdigit() else Decimal(value), unit, value)
            if unit is None and not DOUBTED_US <= found < CEILING_US:
                raise InvalidEvent(
                    f"timestamp {value!r} is between the years 1980 and 2100 in no unit; declare its unit, or {_WANTED}"
                )
            return found
        try:
            return us_from_iso(value)
        except ValueError:
            raise InvalidEvent(f"timestamp {value!r}; {_WANTED}") from None
    if isinstance(value, datetime):
        return us_from_datetime(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | np.integer | np.floating):
        raise InvalidEvent(f"timestamp {value!r} of type {type(value).__name__}; {_WANTED}")
    return _us_from_number(value.item() if isinstance(value, np.generic) else value, unit, value)


def us_of_floats(numbers: NDArray[np.float64], unit: TimeUnit) -> NDArray[np.int64]:
    """`time_us` of finite numbers of one unit, which are times of the years 1970 to 2100."""
    factor, divisor = PER_UNIT[unit]
    nearest = np.rint(numbers * factor / divisor)
    # In these years a float stands for one whole number of microseconds at most, to which its shortest text is rounded;
    # any other lies on the same side of its neighbours as its text.
    cut: NDArray[np.int64] = (nearest - (nearest * divisor / factor > numbers)).astype(np.int64)
    return cut


def _is_number(text: str) -> bool:
    return len(text) <= _MOST_CHARACTERS and _NUMBER.fullmatch(text) is not None


def event_time_us(value: Any, unit: TimeUnit) -> int:
    """`time_us` of a time in a stated unit. Raises InvalidEvent, with the value that came, outside 1970 to 2100."""
    found = time_us(value, unit)
    if 0 <= found < CEILING_US:
        return found
    better = fitting_unit(value)
    advice = "" if better in (None, unit) else f"; in {better} it is {iso_from_us(time_us(value, better))}"
    raise InvalidEvent(f"timestamp {value!r} in {unit} is not between the years 1970 and 2100{advice}")


def fitting_unit(value: Any) -> TimeUnit | None:
    """The unit in which a number is a time between 1980 and 2100; None without one."""
    for unit in PER_UNIT:
        try:
            if DOUBTED_US <= time_us(value, unit) < CEILING_US:
                return unit
        except InvalidEvent:
            continue
    return None


def unit_of(number: int | float | Decimal) -> TimeUnit | None:
    """Unit of a number that counts from 1970, by its magnitude; None for one that is too large for any."""
    magnitude: Any = abs(number)
    for bound, name in _BOUNDS:
        if magnitude < bound:
            return name
    return None


def doubted_before_us(number: float) -> int:
    """Earlier than this, a number of that magnitude that was read without a declared unit is rather no time."""
    return NS_FROM_US if unit_of(number) == "ns" else DOUBTED_US


def is_doubted(number: float) -> bool:
    """Whether a number that was read as a time without a declared unit is rather none."""
    return time_us(number) < doubted_before_us(number)


def reading_of(number: float) -> str:
    """How a number is read as a time without a declared unit, as text."""
    return f"{number}, read in {unit_of(number)} since 1970 as {iso_from_us(time_us(number))}"


def _us_from_number(number: int | float | Decimal, unit: TimeUnit | None, given: Any) -> int:
    if unit is not None and unit not in PER_UNIT:
        raise ValueError(f"unit {unit!r}; expected one of {', '.join(PER_UNIT)}")
    kind = unit or unit_of(number)
    if kind is not None and (isinstance(number, int) or math.isfinite(number)):
        factor, divisor = PER_UNIT[kind]
        exact = number if isinstance(number, int) else Fraction(str(number))
        result = exact * factor // divisor
        if NEVER_US < result < -NEVER_US:
            return result
    raise InvalidEvent(f"timestamp {given!r} is out of range; {_WANTED}")


def usual_datetime(value: datetime) -> datetime:
    """The same time of `datetime` itself, whose subclasses, such as that of pandas, writers of JSON refuse."""
    return datetime.combine(value.date(), value.time(), value.tzinfo)


def us_from_numpy(value: np.datetime64 | np.timedelta64) -> int | None:
    """Microseconds of a time or duration of NumPy, rounded down, which int64 may not hold; None for NaT."""
    if np.isnat(value):
        return None
    unit, count = np.datetime_data(value.dtype)
    ratio = _OF_NUMPY.get(unit)
    if ratio is None:  # years and months, which have no fixed length, and no unit at all
        return int(value.astype(f"{value.dtype.kind}8[us]").astype(np.int64))
    factor, divisor = ratio
    return int(value.astype(np.int64)) * count * factor // divisor


def iso_interval(value: Any) -> str:
    """ISO 8601 text of an interval of ``months``, ``days`` and ``nanoseconds``, as Arrow has it.

    A month has no fixed number of days, nor a day of hours, so no number stands for it.
    """
    sign = "-" if value.nanoseconds < 0 else ""
    seconds, rest = divmod(abs(value.nanoseconds), 1_000_000_000)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"P{value.months}M{value.days}DT{sign}{seconds}{fraction}S"
