"""How long a lap of a replay that repeats is, by Kafka's times and by the times of its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from astrocyte.pipeline.kafka.record import ConsumedRecord, is_frame
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.replays.shift import Shift, event_bounds_us
from astrocyte.schemas.contract import Contract
from astrocyte.schemas.times import CEILING_US, DOUBTED_US

__all__ = ["Laps", "whole_seconds"]

_SECOND_US: Final = 1_000_000


def whole_seconds(span_us: int) -> int:
    """A span of microseconds, rounded up to whole seconds: a whole number of any unit that moves by it stays whole."""
    return -(-span_us // _SECOND_US) * _SECOND_US


@dataclass(slots=True)
class Laps:
    """Lengths of a lap, in whole seconds; that of its events is known when the first lap has been seen.

    It is the greatest event time less the first of each partition. So no event of a further lap is later, as a reader
    counts it, than in the first: what precedes an event in its lap is at least as new as the first event there. Times
    before 1980, which are rather numbers in another unit, count only where there are no others.
    """

    kafka_us: int
    """By Kafka's times, by which messages are due."""
    _firsts: dict[tuple[str, int], int] = field(default_factory=dict)
    _last_us: int = -1
    _stamps_are_times: bool = False

    def see(self, record: ConsumedRecord, contract: Contract) -> None:
        """Take a message of the first lap, as it was recorded."""
        bounds = event_bounds_us(record, contract)
        if bounds is not None:
            place = (record.topic, record.partition)
            if self._firsts.setdefault(place, bounds[0]) < DOUBTED_US <= bounds[0]:
                self._firsts[place] = bounds[0]
            self._last_us = max(self._last_us, bounds[1])
        elif record.value is not None and not is_frame(record):
            self._stamps_are_times = True

    @property
    def event_us(self) -> int:
        """By event times, and at least that by Kafka's."""
        least_us = DOUBTED_US if self._last_us >= DOUBTED_US else 0
        first_us = min((time for time in self._firsts.values() if time >= least_us), default=self._last_us)
        return max(self.kafka_us, whole_seconds(self._last_us - first_us + 1))

    def shift(self, first: Shift | None, lap: int) -> Shift | None:
        """The shift of a lap, counted from 1, of which ``first`` is that of the first.

        Kafka's times move by the lap's length by Kafka's times; where events without a time of their own have Kafka's,
        as far as event times do. Raises InvalidLog where events would reach the year 2100, after which none is read.
        """
        if lap == 1:
            return first
        first = first or Shift()
        event_us = first.event_us + self.event_us * (lap - 1)
        if self._last_us + event_us >= CEILING_US:
            raise InvalidLog(
                f"lap {lap} would reach the year 2100, after which no event is read, since the event times of a lap "
                f"span {self.event_us // _SECOND_US:,} s; leave out the topic or the part with a wrong time"
            )
        stamps_us = (self.event_us if self._stamps_are_times else self.kafka_us) * (lap - 1)
        return Shift(event_us, first.kafka_ms + stamps_us // 1000, lap)
