"""Protection of event time from one wrong clock: which events may advance the watermark of their source.

An event is *ahead* if its time is more than ``tolerance_us`` after the Kafka timestamp of its message and also after
the newest time of every other key of its source. So is one whose Kafka timestamp itself jumped so far. An event that is
ahead waits outside the engine, where it makes no other event late, until the log shows which clock was wrong:

- another key reaches its time: it is accepted, as though it had come then;
- an event follows it, of any key, that is not late but more than ``tolerance_us`` before it, and at least as near to
  its own Kafka timestamp: it is refused;
- the caller knows that its time has passed (`trust`), or the input has ended, or `MOST_WAITING` events wait and are as
  near to their Kafka timestamps as the source is: it is accepted. So a gap of years is nothing special, nor is the
  only device that is left.

Waiting events of a source all have one key: of two keys that are ahead, one has reached the time of the other. Every
decision is a function of the events before it in the log, so it is the same however the log is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.event_time.watermarks import Source
from astrocyte.schemas.times import NEVER_US, iso_from_us

__all__ = ["CLOCK_TOLERANCE_US", "MOST_WAITING", "NO_KAFKA_TIME_US", "Admitted", "ClockGuard", "Waiting"]

CLOCK_TOLERANCE_US: Final = 3_600 * 1_000_000
"""An hour: what Kafka's brokers allow a producer's clock to be ahead by default."""
MOST_WAITING: Final = 1000
NO_KAFKA_TIME_US: Final = NEVER_US
"""Kafka timestamp of a message that has none that can be true."""
_FIRST_KAFKA_US: Final = 946_684_800 * 1_000_000
"""The year 2000: no Kafka timestamp before it is true."""
_FAR_US: Final = 2**62
"""Distance from a Kafka timestamp that is not known."""

Item = TypeVar("Item")
Key = str | None


@dataclass(frozen=True, slots=True)
class Waiting(Generic[Item]):
    """An event that waits; ``item`` is the caller's."""

    key: Key
    time_us: int
    kafka_us: int
    item: Item


class Admitted(NamedTuple, Generic[Item]):
    """One step of what a frame brings about, in order.

    Either rows of the frame are accepted, or a waiting event is accepted (``reason`` is None) or refused.
    """

    rows: Sequence[int]
    waited: Waiting[Item] | None = None
    reason: str | None = None


@dataclass(slots=True)
class _Clock(Generic[Item]):
    """What is known of one source's time."""

    key: Key = None
    newest_us: int = NEVER_US
    """Newest accepted time, and its key."""
    second_us: int = NEVER_US
    """Newest accepted time of all other keys."""
    apart_us: int = _FAR_US
    """How far the newest accepted time was from its Kafka timestamp."""
    kafka_us: int = NO_KAFKA_TIME_US
    """Newest Kafka timestamp that did not jump."""
    alone: bool = False
    """The key of the newest time may go on by itself: it was ahead for long, and no other key contradicted it."""
    waiting: list[Waiting[Item]] = field(default_factory=list)

    def others_us(self, key: Key) -> int:
        """Newest time of the other keys, accepted or waiting."""
        known = self.second_us if key == self.key else self.newest_us
        if self.waiting and self.waiting[0].key != key:
            return max(known, *(each.time_us for each in self.waiting))
        return known

    def accept(self, key: Key, time_us: int, kafka_us: int) -> None:
        """Take the time of an accepted event into account."""
        if self.newest_us == NEVER_US or time_us > self.newest_us:
            if self.newest_us != NEVER_US and key != self.key:
                self.second_us, self.alone = self.newest_us, False
            self.key, self.newest_us, self.apart_us = key, time_us, _distance(time_us, kafka_us)
        elif key != self.key:
            self.second_us = max(self.second_us, time_us)


class ClockGuard(Generic[Item]):
    """Clocks of the sources of one domain. The tolerance is never less than the allowed lateness."""

    def __init__(self, *, tolerance_us: int = CLOCK_TOLERANCE_US, lateness_us: int = 0) -> None:
        self.tolerance_us = max(tolerance_us, lateness_us)
        self._clocks: dict[Source, _Clock[Item]] = {}

    @property
    def waiting(self) -> int:
        """Number of events that wait."""
        return sum(len(clock.waiting) for clock in self._clocks.values())

    def admit(
        self,
        source: Source,
        times_us: NDArray[np.int64],
        keys: pa.DictionaryArray,
        kafka_us: NDArray[np.int64],
        wait: Callable[[int], Item],
    ) -> list[Admitted[Item]] | None:
        """Judge the rows of a frame, in order. None: all rows are accepted, and no event waited for them.

        ``kafka_us`` has a value for each row. ``wait`` makes the item of a row that has to wait.
        """
        if not len(times_us):
            return None
        clock = self._clocks.get(source)
        if clock is None:
            clock = self._clocks[source] = _Clock()
        kafka_us = np.where(kafka_us >= _FIRST_KAFKA_US, kafka_us, NO_KAFKA_TIME_US)
        if self._is_plain(clock, times_us, kafka_us):
            _accept_all(clock, times_us, keys, kafka_us)
            clock.kafka_us = max(clock.kafka_us, int(kafka_us.max()))
            return None
        names = [*keys.dictionary.to_pylist(), None]
        codes = keys.indices.fill_null(len(names) - 1).to_pylist()
        steps: list[Admitted[Item]] = []
        run: list[int] = []
        rows = zip(codes, times_us.tolist(), kafka_us.tolist(), strict=True)
        for row, (code, time_us, stamp_us) in enumerate(rows):
            event = Waiting(names[code], time_us, stamp_us, None)
            decided = self._settle(clock, event) if clock.waiting else []
            accepted = self._is_accepted(clock, event)
            if accepted:
                # Events of one key stay in their order.
                earlier = [each for each in clock.waiting if each.key == event.key and each.time_us <= time_us]
                decided += self._release(clock, earlier)
                self._accept(clock, event)
            else:
                clock.waiting.append(Waiting(event.key, time_us, stamp_us, wait(row)))
                decided += self._overflow(clock)
            if decided or not accepted:
                steps += [Admitted(run), *decided] if run else decided
                run = []
            if accepted:
                run.append(row)
        if len(run) == len(codes) and not steps:
            return None
        return [*steps, Admitted(run)] if run else steps

    def trust(self, until_us: int | None = None, *, of: Source | None = None) -> list[Admitted[Item]]:
        """Accept events that wait (of one source): all, or those not more than the tolerance after ``until_us``."""
        limit = None if until_us is None else until_us + self.tolerance_us
        released: list[Admitted[Item]] = []
        for source, clock in self._clocks.items():
            if clock.waiting and of in (None, source):
                chosen = [each for each in clock.waiting if limit is None or each.time_us <= limit]
                released += self._release(clock, chosen)
                clock.alone = clock.alone or bool(chosen)
        return released

    def forget(self, source: Source) -> None:
        """Drop a source that has ended; a later run may be of another time. Its waiting events must have been taken."""
        self._clocks.pop(source, None)

    def snapshot(self, pack: Callable[[Item], object]) -> list[object]:
        """State as JSON values; ``pack`` makes one of an item."""
        return [
            [
                list(source),
                [clock.key, clock.newest_us, clock.second_us, clock.apart_us, clock.kafka_us, clock.alone],
                [[each.key, each.time_us, each.kafka_us, pack(each.item)] for each in clock.waiting],
            ]
            for source, clock in self._clocks.items()
        ]

    def restore(self, snapshot: Sequence[Sequence[Sequence[object]]], unpack: Callable[[object], Item]) -> None:
        """Restore the state of `snapshot`."""
        self._clocks = {}
        for source, values, waiting in snapshot:
            clock: _Clock[Item] = _Clock(*values)  # type: ignore[arg-type]
            for key, time_us, kafka_us, item in waiting:  # type: ignore[misc]
                clock.waiting.append(Waiting(key, time_us, kafka_us, unpack(item)))  # type: ignore[has-type]
            self._clocks[Source(*source)] = clock  # type: ignore[arg-type]

    def _is_plain(self, clock: _Clock[Item], times_us: NDArray[np.int64], kafka_us: NDArray[np.int64]) -> bool:
        """Whether every row is accepted whatever the rows before it are: with two keys known, both limits only grow."""
        if clock.waiting or clock.alone or clock.second_us == NEVER_US:
            return False
        stamp_limit = clock.kafka_us + self.tolerance_us
        if int(kafka_us.max()) > stamp_limit:
            return False
        limit = clock.second_us + self.tolerance_us
        return int(times_us.max()) <= limit or bool(
            ((times_us <= limit) | (times_us <= kafka_us + self.tolerance_us)).all()
        )

    def _is_accepted(self, clock: _Clock[Item], event: Waiting[None]) -> bool:
        others_us = clock.others_us(event.key)
        if others_us != NEVER_US and event.time_us <= others_us + self.tolerance_us:
            return True
        first = clock.newest_us == NEVER_US
        if event.kafka_us == NO_KAFKA_TIME_US and first:
            return not clock.waiting  # nothing to compare it with
        if self._is_steady(clock, event) and event.time_us <= event.kafka_us + self.tolerance_us:
            return True
        goes_on = not first and event.key == clock.key and (clock.alone or clock.second_us == NEVER_US)
        return goes_on and event.time_us <= clock.newest_us + self.tolerance_us

    def _is_steady(self, clock: _Clock[Item], event: Waiting[Any]) -> bool:
        """Whether the event's Kafka timestamp is known and did not jump."""
        known = event.kafka_us != NO_KAFKA_TIME_US
        return known and (clock.kafka_us == NO_KAFKA_TIME_US or event.kafka_us <= clock.kafka_us + self.tolerance_us)

    def _accept(self, clock: _Clock[Item], event: Waiting[Any], *, waited: bool = False) -> None:
        if waited or self._is_steady(clock, event):
            clock.kafka_us = max(clock.kafka_us, event.kafka_us)
        clock.accept(event.key, event.time_us, event.kafka_us)

    def _settle(self, clock: _Clock[Item], event: Waiting[None]) -> list[Admitted[Item]]:
        """Waiting events that an event decides: refused or accepted, in the order in which they came."""
        # An event far behind the source is late, and says nothing about the newest time.
        speaks = clock.newest_us == NEVER_US or event.time_us >= clock.newest_us - self.tolerance_us
        decided: list[Admitted[Item]] = []
        rest = []
        for each in clock.waiting:
            if speaks and event.time_us < each.time_us - self.tolerance_us and self._is_nearer(event, each):
                decided.append(Admitted((), each, self._reason(each, event)))
            elif event.key != each.key and event.time_us >= each.time_us:
                self._accept(clock, each, waited=True)
                decided.append(Admitted((), each))
            else:
                rest.append(each)
        clock.waiting = rest
        return decided

    def _is_nearer(self, event: Waiting[None], waiting: Waiting[Item]) -> bool:
        """Whether the event is at least as near to its Kafka timestamp, or Kafka's time fell back after the other."""
        fell_back = event.kafka_us != NO_KAFKA_TIME_US and event.kafka_us < waiting.kafka_us - self.tolerance_us
        apart = _FAR_US if fell_back else _distance(waiting.time_us, waiting.kafka_us)
        return _distance(event.time_us, event.kafka_us) <= apart

    def _overflow(self, clock: _Clock[Item]) -> list[Admitted[Item]]:
        if len(clock.waiting) < MOST_WAITING:
            return []
        chosen = clock.waiting
        if all(_distance(each.time_us, each.kafka_us) <= clock.apart_us for each in chosen):
            decided = self._release(clock, chosen)
            clock.alone = True
            return decided
        clock.waiting = []
        return [Admitted((), each, self._reason(each, None)) for each in chosen]

    def _release(self, clock: _Clock[Item], chosen: Sequence[Waiting[Item]]) -> list[Admitted[Item]]:
        if chosen:
            for each in chosen:
                self._accept(clock, each, waited=True)
            gone = {id(each) for each in chosen}
            clock.waiting = [each for each in clock.waiting if id(each) not in gone]
        return [Admitted((), each) for each in chosen]

    def _reason(self, waited: Waiting[Item], event: Waiting[None] | None) -> str:
        stamp = "none" if waited.kafka_us == NO_KAFKA_TIME_US else iso_from_us(waited.kafka_us)
        after = (
            f"{MOST_WAITING} such events came in a row"
            if event is None
            else f"an event of {iso_from_us(event.time_us)} (key {event.key!r}) came after it"
        )
        return (
            f"timestamp {iso_from_us(waited.time_us)} is ahead of its Kafka timestamp ({stamp}) and of every other key "
            f"of its source by more than the clock tolerance of {self.tolerance_us / 1e6:g} s, and {after}; the clock "
            f"of key {waited.key!r} is wrong (ASTROCYTE_CLOCK_TOLERANCE)"
        )


def _accept_all(
    clock: _Clock[Item], times_us: NDArray[np.int64], keys: pa.DictionaryArray, kafka_us: NDArray[np.int64]
) -> None:
    """`_Clock.accept` of every row: only the newest time, and the newest of another key, matter."""
    if int(times_us.max()) <= clock.second_us:
        return
    codes = keys.indices.fill_null(-1).to_numpy()
    newest = int(times_us.argmax())
    others = np.flatnonzero(codes != codes[newest])
    for row in [newest, int(others[times_us[others].argmax()])] if len(others) else [newest]:
        clock.accept(keys[row].as_py(), int(times_us[row]), int(kafka_us[row]))


def _distance(time_us: int, kafka_us: int) -> int:
    return _FAR_US if kafka_us == NO_KAFKA_TIME_US else abs(time_us - kafka_us)
