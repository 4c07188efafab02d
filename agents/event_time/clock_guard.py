"""Protection of event time from one wrong clock: which events may advance the watermark of their source.

An event is *ahead* if its time is more than ``tolerance_us`` after the newest time of every other key of its source,
and Kafka's time does not explain that: its lead over its Kafka timestamp is more than the tolerance above theirs, or
its Kafka timestamp jumped itself. While a source has one key only, an event is ahead if it is so far after its Kafka
timestamp. An event that is ahead waits outside the engine, where it makes no other event late, until the log shows
which clock was wrong:

- another key reaches its time: it is accepted, as though it had come then;
- events follow it that are not late but more than the tolerance before it, and at least as near to their own Kafka
  timestamps: it is contradicted. If two other keys do so, or its own, it is refused. Where nothing was accepted and
  there are no Kafka timestamps, as at the beginning of a file, only the greater number of those that wait contradicts,
  across a gap of more than the tolerance;
- `MOST_WAITING` events wait: they are accepted if they came in a row and are as near to Kafka's time as the source is,
  so that the only device that is left, or a gap of years, is nothing special; else they are refused;
- the caller knows that its time has passed (`trust`): it is accepted;
- the input has ended: it is accepted unless it is contradicted.

The first events of a source wait in the same way where they have no Kafka timestamp (in a file), until a second key
has reached their time. Events without a key may be of any device, so they confirm no other: one that is ahead waits
until a key that is accepted reaches its time. Every decision is a function of the events before it in the log, so it is
the same however the log is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.event_time.sources import Source
from astrocyte.schemas.times import CEILING_US, NEVER_US, iso_from_us
from astrocyte.schemas.topics import TopicPartition

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


@dataclass(frozen=True, slots=True, eq=False)
class Waiting(Generic[Item]):
    """An event that waits; ``item`` is the caller's."""

    key: Key
    time_us: int
    kafka_us: int
    item: Item
    against: tuple[Key, int] | None = None
    """Key and time of an event that contradicts it."""


class Admitted(NamedTuple, Generic[Item]):
    """One step of what a frame brings about, in order.

    Either rows of the frame are accepted, or a waiting event is accepted (``reason`` is None) or refused.
    """

    rows: Sequence[int]
    waited: Waiting[Item] | None = None
    reason: str | None = None


@dataclass(slots=True)
class _Top:
    """Greatest value of all keys, and of all keys but that of the greatest; `NEVER_US` where there is none."""

    key: Key = None
    first: int = NEVER_US
    second: int = NEVER_US

    def add(self, key: Key, value: int) -> bool:
        """Take a value into account; returns whether the key of the greatest changed."""
        changed = value > self.first and self.first != NEVER_US and key != self.key
        if changed:
            self.second = self.first
        if value > self.first:
            self.key, self.first = key, value
        elif key != self.key:
            self.second = max(self.second, value)
        return changed

    def add_all(self, keys: pa.DictionaryArray, codes: NDArray[Any], values: NDArray[np.int64]) -> None:
        """`add` of every value, in any order; ``codes`` are those of ``keys``."""
        if int(values.max()) <= self.second:
            return
        first = int(values.argmax())
        others = np.flatnonzero(codes != codes[first])
        for row in [first, int(others[values[others].argmax()])] if len(others) else [first]:
            self.add(keys[row].as_py(), int(values[row]))

    def others(self, key: Key) -> int:
        """Greatest value of the other keys."""
        return self.second if key == self.key else self.first


@dataclass(slots=True)
class _Clock(Generic[Item]):
    """What is known of one source's time, from its accepted events."""

    times: _Top = field(default_factory=_Top)
    leads: _Top = field(default_factory=_Top)
    """Times less Kafka timestamps, of events whose Kafka timestamp did not jump."""
    kafka_us: int = NO_KAFKA_TIME_US
    """Newest Kafka timestamp that did not jump."""
    apart_us: int = _FAR_US
    """How far the newest time was from its Kafka timestamp."""
    alone: bool = False
    """The key of the newest time may go on by itself: it was ahead for long, and no other key contradicted it."""
    passed_over: bool = False
    """Another key has sent events before the waiting ones, after them in the log."""
    waiting: list[Waiting[Item]] = field(default_factory=list)

    def others_us(self, key: Key) -> int:
        """Newest time of the other keys, accepted or waiting; an event without a key may be of one that waits."""
        accepted_us = self.times.others(key)
        if key is None or not self.waiting:
            return accepted_us
        return max((accepted_us, *(each.time_us for each in self.waiting if each.key not in (key, None))))

    def keep(self, waiting: list[Waiting[Item]]) -> None:
        """Replace the waiting events."""
        self.waiting = waiting
        self.passed_over = self.passed_over and bool(waiting)


class ClockGuard(Generic[Item]):
    """Clocks of the sources of one domain. The tolerance is never less than the allowed lateness."""

    def __init__(self, *, tolerance_us: int = CLOCK_TOLERANCE_US, lateness_us: int = 0) -> None:
        self.tolerance_us = max(tolerance_us, lateness_us)
        self.lateness_us = lateness_us
        self._clocks: dict[Source, _Clock[Item]] = {}

    @property
    def waiting(self) -> int:
        """Number of events that wait."""
        return sum(len(clock.waiting) for clock in self._clocks.values())

    def items(self) -> list[Item]:
        """Items of the events that wait."""
        return [each.item for clock in self._clocks.values() for each in clock.waiting]

    @property
    def sources(self) -> list[Source]:
        """Sources that are known."""
        return list(self._clocks)

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
        codes = keys.indices.to_numpy() if keys.null_count == 0 else keys.indices.fill_null(-1).to_numpy()
        if self._is_plain(clock, times_us, keys, codes, kafka_us):
            self._accept_all(clock, times_us, keys, codes, kafka_us)
            return None
        names = [*keys.dictionary.to_pylist(), None]
        steps: list[Admitted[Item]] = []
        run: list[int] = []
        rows = zip(codes.tolist(), times_us.tolist(), kafka_us.tolist(), strict=True)
        for row, (code, time_us, stamp_us) in enumerate(rows):
            event = Waiting(names[code], time_us, stamp_us, None)
            decided = self._settle(clock, event) if clock.waiting else []
            accepted = self._is_accepted(clock, event)
            if accepted:
                # Events of one key stay in their order; those without a key have waited for one that is accepted.
                own = (event.key, None)
                earlier = [each for each in clock.waiting if each.key in own and each.time_us <= time_us]
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

    def trust(
        self, until_us: int | None = None, *, of: Source | None = None, idle: Container[TopicPartition] = ()
    ) -> list[Admitted[Item]]:
        """Accept events that wait (of one source): all, or those that a clock which shows ``until_us`` explains.

        Those are events whose Kafka timestamps it has reached, and which are not ahead of these; in ``idle`` places,
        where nothing follows, all events whose times it has reached.
        """
        released: list[Admitted[Item]] = []
        for source, clock in self._clocks.items():
            if clock.waiting and of in (None, source):
                limit = None if until_us is None else until_us + self.tolerance_us
                at_rest = source.place in idle
                chosen = [
                    each
                    for each in clock.waiting
                    if limit is None or self._explains(clock, each, limit, at_rest=at_rest)
                ]
                refused = [each for each in chosen if limit is None and each.against is not None]
                accepted = [each for each in chosen if limit is not None or each.against is None]
                clock.keep([each for each in clock.waiting if each not in refused])
                released += [Admitted((), each, self._reason(each)) for each in refused]
                released += self._release(clock, accepted)
                clock.alone = clock.alone or bool(accepted)
        return released

    def forget(self, source: Source) -> None:
        """Drop a source that has ended; a later run may be of another time. Its waiting events must have been taken."""
        self._clocks.pop(source, None)

    def snapshot(self, pack: Callable[[Item], object]) -> list[list[Any]]:
        """State as JSON values; ``pack`` makes one of an item."""
        return [
            [
                list(source),
                [clock.times.key, clock.times.first, clock.times.second],
                [clock.leads.key, clock.leads.first, clock.leads.second],
                [clock.kafka_us, clock.apart_us, clock.alone, clock.passed_over],
                [[each.key, each.time_us, each.kafka_us, pack(each.item), each.against] for each in clock.waiting],
            ]
            for source, clock in self._clocks.items()
        ]

    def restore(self, snapshot: Sequence[Sequence[Any]], unpack: Callable[[Any], Item]) -> None:
        """Restore the state of `snapshot`."""
        self._clocks = {}
        for source, times, leads, values, waiting in snapshot:
            clock: _Clock[Item] = _Clock(_Top(*times), _Top(*leads), *values)
            clock.waiting = [
                Waiting(key, time_us, kafka_us, unpack(item), None if against is None else tuple(against))
                for key, time_us, kafka_us, item, against in waiting
            ]
            self._clocks[Source(*source)] = clock

    def _is_plain(
        self,
        clock: _Clock[Item],
        times_us: NDArray[np.int64],
        keys: pa.DictionaryArray,
        codes: NDArray[Any],
        kafka_us: NDArray[np.int64],
    ) -> bool:
        """Whether every row is accepted whatever the rows before it are: with two keys known, all limits only grow."""
        if clock.waiting or clock.alone or clock.times.first == NEVER_US:
            return False
        if int(kafka_us.max()) > clock.kafka_us + self.tolerance_us:
            return False
        if clock.times.second == NEVER_US:
            if keys[0].as_py() != clock.times.key or not (codes == codes[0]).all():
                return False
            # The only key of a source is judged by Kafka's time alone.
            return bool(((kafka_us == NO_KAFKA_TIME_US) | (times_us <= kafka_us + self.tolerance_us)).all())
        near = times_us <= clock.times.second + self.tolerance_us
        if near.all():
            return True
        known = kafka_us != NO_KAFKA_TIME_US
        leads = times_us - np.where(known, kafka_us, 0)
        return bool((near | (known & (leads <= clock.leads.second + self.tolerance_us))).all())

    def _is_accepted(self, clock: _Clock[Item], event: Waiting[None]) -> bool:
        others_us = clock.others_us(event.key)
        if others_us != NEVER_US and event.time_us <= others_us + self.tolerance_us:
            return True
        lead_us = clock.leads.others(event.key)
        steady = lead_us != NEVER_US and self._is_steady(clock, event)
        if steady and event.time_us - event.kafka_us <= lead_us + self.tolerance_us:
            return True
        only = others_us == NEVER_US
        if only and (
            clock.times.first != NEVER_US
            if event.kafka_us == NO_KAFKA_TIME_US
            else event.time_us <= event.kafka_us + self.tolerance_us
        ):
            return True  # there is no other key that it could harm
        goes_on = event.key == clock.times.key and (clock.alone or only)
        return goes_on and event.time_us <= clock.times.first + self.tolerance_us

    def _is_steady(self, clock: _Clock[Item], event: Waiting[Any]) -> bool:
        """Whether the event's Kafka timestamp is known and did not jump."""
        known = event.kafka_us != NO_KAFKA_TIME_US
        return known and (clock.kafka_us == NO_KAFKA_TIME_US or event.kafka_us <= clock.kafka_us + self.tolerance_us)

    def _accept(self, clock: _Clock[Item], event: Waiting[Any], *, sure: bool = False) -> None:
        """Take an event into account; ``sure``: its Kafka timestamp, too, although it jumped."""
        if event.kafka_us != NO_KAFKA_TIME_US and (sure or self._is_steady(clock, event)):
            clock.kafka_us = max(clock.kafka_us, event.kafka_us)
            clock.leads.add(event.key, event.time_us - event.kafka_us)
        if event.time_us > clock.times.first:
            clock.apart_us = _distance(event.time_us, event.kafka_us)
        if clock.times.add(event.key, event.time_us):
            clock.alone = False

    def _accept_all(
        self,
        clock: _Clock[Item],
        times_us: NDArray[np.int64],
        keys: pa.DictionaryArray,
        codes: NDArray[Any],
        kafka_us: NDArray[np.int64],
    ) -> None:
        """`_accept` of every row of a plain frame."""
        known = kafka_us != NO_KAFKA_TIME_US
        clock.kafka_us = max(clock.kafka_us, int(kafka_us.max()))
        if known.any():
            clock.leads.add_all(keys, codes, np.where(known, times_us - np.where(known, kafka_us, 0), NEVER_US))
        newest = int(times_us.argmax())
        if int(times_us[newest]) > clock.times.first:
            clock.apart_us = _distance(int(times_us[newest]), int(kafka_us[newest]))
        clock.times.add_all(keys, codes, times_us)

    def _explains(self, clock: _Clock[Item], event: Waiting[Item], limit_us: int, *, at_rest: bool) -> bool:
        """Whether a clock that shows the limit (less the tolerance) says that the event's time has come."""
        if at_rest:
            return event.time_us <= limit_us and event.against is None
        lead_us = max(0, clock.leads.first) + self.tolerance_us
        known = event.kafka_us != NO_KAFKA_TIME_US
        return known and event.kafka_us <= limit_us and event.time_us - event.kafka_us <= lead_us

    def _settle(self, clock: _Clock[Item], event: Waiting[None]) -> list[Admitted[Item]]:
        """Waiting events that an event decides: refused or accepted, in the order in which they came."""
        # A late event says nothing about the newest time.
        speaks = clock.times.first == NEVER_US or event.time_us >= clock.times.first - self.lateness_us
        limit_us = self._ahead_of(clock, event)
        decided: list[Admitted[Item]] = []
        rest = []
        for each in clock.waiting:
            before = speaks and each.time_us > limit_us
            nearer = before and self._is_nearer(event, each)
            if nearer and (event.key == each.key or (each.against is not None and each.against[0] != event.key)):
                decided.append(Admitted((), each, self._reason(replace(each, against=(event.key, event.time_us)))))
            elif None is not event.key != each.key is not None and event.time_us >= each.time_us:
                self._accept(clock, each, sure=True)
                decided.append(Admitted((), each))
            else:
                clock.passed_over |= before and event.key != each.key
                rest.append(replace(each, against=(event.key, event.time_us)) if nearer else each)
        clock.keep(rest)
        return decided

    def _ahead_of(self, clock: _Clock[Item], event: Waiting[None]) -> int:
        """Waiting events after this time are ahead of an event.

        Where neither Kafka nor an accepted event says which of them is right, as with the first events of a file, one
        that falls back says no more than each of those before it: the greater number counts. And what others lead to
        in steps within the tolerance is out of order, by whatever clock.
        """
        known = clock.times.first != NEVER_US or event.kafka_us != NO_KAFKA_TIME_US
        if known or any(each.kafka_us != NO_KAFKA_TIME_US for each in clock.waiting):
            return event.time_us + self.tolerance_us
        reached_us, near = event.time_us, 1
        for time_us in sorted(each.time_us for each in clock.waiting):
            if time_us > reached_us + self.tolerance_us:
                break
            reached_us, near = max(reached_us, time_us), near + 1
        return reached_us if len(clock.waiting) + 1 - near < near else CEILING_US

    def _is_nearer(self, event: Waiting[None], waiting: Waiting[Item]) -> bool:
        """Whether the event is at least as near to its Kafka timestamp, or Kafka's time fell back after the other."""
        fell_back = event.kafka_us != NO_KAFKA_TIME_US and event.kafka_us < waiting.kafka_us - self.tolerance_us
        apart = _FAR_US if fell_back else _distance(waiting.time_us, waiting.kafka_us)
        return _distance(event.time_us, event.kafka_us) <= apart

    def _overflow(self, clock: _Clock[Item]) -> list[Admitted[Item]]:
        if len(clock.waiting) < MOST_WAITING:
            return []
        chosen = clock.waiting
        near = all(_distance(each.time_us, each.kafka_us) <= clock.apart_us for each in chosen)
        if near and not clock.passed_over:
            decided = self._release(clock, chosen)
            clock.alone = True
            return decided
        clock.keep([])
        return [Admitted((), each, self._reason(each)) for each in chosen]

    def _release(self, clock: _Clock[Item], chosen: Sequence[Waiting[Item]]) -> list[Admitted[Item]]:
        if chosen:
            for each in chosen:
                self._accept(clock, each, sure=True)
            gone = {id(each) for each in chosen}
            clock.keep([each for each in clock.waiting if id(each) not in gone])
        return [Admitted((), each) for each in chosen]

    def _reason(self, waited: Waiting[Item]) -> str:
        stamp = "none" if waited.kafka_us == NO_KAFKA_TIME_US else iso_from_us(waited.kafka_us)
        after = f"{MOST_WAITING} such events waited"
        if waited.against is not None:
            key, time_us = waited.against
            after = f"an event of {iso_from_us(time_us)} (key {key!r}) came after it"
        return (
            f"timestamp {iso_from_us(waited.time_us)} is ahead of every other key of its source by more than the clock "
            f"tolerance of {self.tolerance_us / 1e6:g} s, which its Kafka timestamp ({stamp}) does not explain, and "
            f"{after}; the clock of key {waited.key!r} is wrong (ASTROCYTE_CLOCK_TOLERANCE)"
        )


def _distance(time_us: int, kafka_us: int) -> int:
    return _FAR_US if kafka_us == NO_KAFKA_TIME_US else abs(time_us - kafka_us)
