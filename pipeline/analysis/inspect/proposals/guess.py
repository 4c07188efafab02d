"""The event time of events whose names say nothing of it: guessed by the values of a member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from astrocyte.pipeline.analysis.inspect.forms import Opened
from astrocyte.pipeline.analysis.inspect.proposals.keys import POSITIONS, identifies
from astrocyte.pipeline.analysis.inspect.proposals.proposal import SHARE, GuessedTime, Seen, number_of_time, snake
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import CEILING_US, PER_UNIT, TimeUnit, time_us, unit_of, us_from_ms

__all__ = ["guessed_times"]

_FROM_US: Final = 978_307_200 * 1_000_000
"""The year 2001: seconds since 1970 have had nine digits or ten since then, as few counts and codes have."""
_YEAR_US: Final = 366 * 86_400 * 1_000_000
_LONGEST_US: Final = 20 * _YEAR_US
"""Span of 90 % of the values up to which they may be times: those of ids and amounts lie anywhere in the century."""
_QUANTITIES: Final = frozenset({
    "amount", "balance", "bytes", "capacity", "count", "duration", "hash", "length", "memory", "offset", "price", "qty",
    "quantity", "revenue", "salary", "size", "sum", "total", "uptime", "value", "volume", "zip",
})  # fmt: skip
"""Words of a name that say what else its numbers are."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: tuple[float, int]
    guess: GuessedTime


def guessed_times(seen: Sequence[Seen], opened: Sequence[Opened], events: int, *, is_file: bool) -> list[GuessedTime]:
    """Members whose values are times of the years 2001 to 2099 in one unit in nearly all events, the best first.

    ``opened`` are the messages of the ``events`` events. On a topic the values have to be within a year of the time of
    their message in Kafka. Names of what identifies something or counts it exclude a member, and so do values that
    spread over decades. The best is most in the order of the events, then nearest to the top.
    """
    found = []
    for each in seen:
        unit = _unit(each, events)
        if unit is None:
            continue
        times = _times(each.values, unit)
        good = [at for at, time in enumerate(times) if time is not None and _FROM_US < time < CEILING_US]
        if not is_file:
            good = [at for at in good if _is_near(times[at], opened[each.rows[at]])]
        usual = [time for at in good if (time := times[at]) is not None]
        if len(usual) < SHARE * events or len(set(usual)) < min(2, len(usual)):
            continue
        ordered = sorted(usual)
        if ordered[int(0.95 * (len(ordered) - 1))] - ordered[int(0.05 * (len(ordered) - 1))] > _LONGEST_US:
            continue
        backwards = sum(later < earlier for earlier, later in pairwise(usual)) / len(usual)
        found.append(_Candidate((round(backwards, 1), each.path.count(".")), GuessedTime(each.path, unit)))
    return [each.guess for each in sorted(found, key=lambda each: each.rank)]


def _unit(each: Seen, events: int) -> TimeUnit | None:
    """The unit of the numbers of a member that may be times; None for any other."""
    name = each.path.rpartition(".")[2]
    words = snake(name)
    if not name or len(each.values) < SHARE * events or identifies(each.path) or POSITIONS.fullmatch(words):
        return None
    if any(isinstance(value, bool | list | Mapping) for value in each.values):
        return None
    if not _QUANTITIES.isdisjoint(words.split("_")):
        return None
    numbers = [number for value in each.values if (number := number_of_time(value)) is not None]
    units = {unit_of(number) for number in numbers}
    unit = units.pop() if len(units) == 1 else None
    if unit is None:
        return None
    factor, divisor = PER_UNIT[unit]
    near = sum(_FROM_US * divisor < number * factor < CEILING_US * divisor for number in numbers)
    return unit if near >= SHARE * events else None


def _times(values: Sequence[Any], unit: TimeUnit) -> list[int | None]:
    found: list[int | None] = []
    for value in values:
        try:
            found.append(time_us(value, unit) if number_of_time(value) is not None else None)
        except InvalidEvent:
            found.append(None)
    return found


def _is_near(time: int | None, message: Opened) -> bool:
    kafka = us_from_ms(message.record.timestamp)
    return time is not None and kafka is not None and abs(time - kafka) < _YEAR_US
