"""Records of a chunk that were read and are not yet columns: their parts, and their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import TimeUnit, event_time_us, time_us, us_from_ms

__all__ = ["Parsed", "Refused", "with_times"]

_US: Final = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True, order=True)
class Refused:
    """A record that is not an event: its index in the chunk and the reason."""

    index: int
    reason: str


@dataclass(slots=True)
class Parsed:
    """One readable record, flattened: reserved values, and the fields.

    It is not the `Event`, which would keep the whole JSON of each record of a chunk for the garbage collector.
    """

    index: int
    event_id: str | None
    time: Any
    type: str | None
    key: str | None
    fields: dict[str, Any]
    """By column name."""
    unit: TimeUnit | None = None
    """Unit of a number in ``time``, where it is stated."""
    nulled: Mapping[str, str] | None = None
    """Why fields became null, by name: their values were of another type, for which that is declared."""


def with_times(parsed: list[Parsed], stamps: Sequence[int], refused: list[Refused]) -> list[Parsed]:
    """Convert times to microseconds, strings in one pass; records whose time cannot be read move to ``refused``.

    ``stamps``: Kafka's time of every record of the chunk, in milliseconds (-1: none), for events that have none.
    """
    worded = [item for item in parsed if isinstance(item.time, str) and item.unit is None]
    read: set[int] = set()
    if worded:
        try:
            values = pc.cast(pa.array([item.time for item in worded]), _US).cast(pa.int64()).to_pylist()
        except pa.ArrowInvalid:
            pass  # at least one needs the slower parser below, which also identifies an invalid one
        else:
            for item, value in zip(worded, values, strict=True):
                item.time = value
                read.add(item.index)
    kept = []
    for item in parsed:
        try:
            if item.index not in read:
                item.time = _time_us(item, stamps[item.index])
        except InvalidEvent as error:
            refused.append(Refused(item.index, str(error)))
        else:
            kept.append(item)
    return kept


def _time_us(item: Parsed, stamp: int) -> int:
    if item.time is None:
        return _kafka_time_us(stamp)
    return time_us(item.time) if item.unit is None else event_time_us(item.time, item.unit)


def _kafka_time_us(stamp: int) -> int:
    found = us_from_ms(stamp)
    if found is None:
        given = "no timestamp" if stamp == -1 else f"the timestamp {stamp}"
        raise InvalidEvent(
            f"the event has no time, and its Kafka message has {given}; expected milliseconds since 1970 before the "
            "year 2100"
        )
    return found
