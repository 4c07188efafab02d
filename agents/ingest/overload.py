"""What a domain leaves out of its input while its worker is behind, by decisions that name offsets.

A decision (`Interval`) holds for some offsets of one partition, whatever the lag is when they are read. So each reader
that has the decisions, now or in a replay, leaves out the same events. `sample` keeps an event by a hash of its id:
those that are kept are the same for each reader and stand for 1/share events each (`Frame.weight`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.ingest.decode import RETRY_ORIGIN
from astrocyte.agents.rules.streams import OverloadPolicy
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.ids import Ids, mixed
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.topics import TopicPartition

__all__ = ["Interval", "LeavingOut", "RecordedDecisions", "Schedule", "is_kept", "left_out_lines"]

_SALT: Final = np.uint64(0xA5C3_96E1_7D24_B80F)
"""Makes this sample independent of that of a validator, which is chosen by the same ids."""


class Interval(NamedTuple):
    """Offsets of a partition from ``first`` up to ``end``, excluded, and what was decided for them."""

    first: int
    end: int
    policy: OverloadPolicy
    share: float = 1.0


class _Left(NamedTuple):
    """Events that were left out of one frame."""

    stream: str
    policy: OverloadPolicy
    events: int


def is_kept(ids: Ids, share: float) -> NDArray[np.bool_]:
    """Which events a sample of a share keeps, by their ids (shape [n, 2])."""
    salted = ids.copy()
    salted[:, 1] ^= _SALT
    return mixed(salted).astype(np.float64) / 2.0**64 < share


class Schedule:
    """The decisions about one partition of a topic, in order; they do not overlap. Without one nothing is left out."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._intervals: list[Interval] = []
        self.forgotten = 0
        """Everything before this offset was decided and is no longer known."""
        for each in intervals:
            self.add(each)

    def __iter__(self) -> Iterator[Interval]:
        return iter(self._intervals)

    @property
    def end(self) -> int:
        """Offset after the last one for which there is a decision, whatever is decided before it."""
        return self._intervals[-1].end if self._intervals else self.forgotten

    @property
    def last(self) -> OverloadPolicy:
        """What was decided last."""
        return self._intervals[-1].policy if self._intervals else "block"

    def add(self, interval: Interval) -> None:
        """Take a decision for the offsets for which there is none yet: the first one about an offset counts."""
        first = max(interval.first, self.end)
        if first < interval.end:
            self._intervals.append(interval._replace(first=first))

    def forget(self, before: int) -> None:
        """What lies before an offset is not read again."""
        while len(self._intervals) > 1 and self._intervals[0].end <= before:
            self.forgotten = self._intervals.pop(0).end

    def at(self, offset: int) -> Interval | None:
        """The decision for an offset."""
        number = bisect_right(self._intervals, offset, key=lambda each: each.first) - 1
        found = self._intervals[number] if number >= 0 else None
        return found if found is not None and offset < found.end else None

    def between(self, first: int, last: int) -> list[Interval]:
        """The decisions that leave out any of the offsets ``first`` to ``last``."""
        begin = max(0, bisect_right(self._intervals, first, key=lambda each: each.first) - 1)
        end = bisect_right(self._intervals, last, begin, key=lambda each: each.first)
        return [each for each in self._intervals[begin:end] if each.policy != "block" and each.end > first]

    def snapshot(self) -> list[list[Any]]:
        """The decisions as JSON values."""
        return [list(each) for each in self._intervals]


class RecordedDecisions:
    """The decisions of records of `control.sampling`, read in their order.

    Each life of a domain writes where it begins. What an earlier one writes after that, which has lost its partition
    and does not know it yet, holds for itself alone. ``lives``: by domain, the life that is in force at the beginning.
    """

    def __init__(self, lives: Mapping[tuple[str, int], str] | None = None) -> None:
        self._lives = dict(lives or {})

    def read(self, value: bytes | None) -> tuple[str, TopicPartition, Interval] | None:
        """Role, place and decision of a record; None for one that is none, or that is not in force."""
        try:
            body = orjson.loads(value or b"")
            domain, life = (str(body["role"]), int(body["partition"])), str(body["life"])
            if body.get("begins"):
                self._lives[domain] = life
                return None
            if self._lives.setdefault(domain, life) != life or body["policy"] not in get_args(OverloadPolicy):
                return None
            share = float(body["share"]) if body["policy"] == "sample" else 1.0
            if not 0 < share <= 1:
                return None
            interval = Interval(int(body["from"]), int(body["until"]), body["policy"], share)
            return domain[0], TopicPartition(str(body["topic"]), domain[1]), interval
        except (orjson.JSONDecodeError, KeyError, OverflowError, TypeError, ValueError):
            return None  # of a later version


class LeavingOut:
    """The schedules of a domain's topics, what was left out by them, and messages that wait for others.

    Of an interval of ``latest`` all messages must be there before any is used: until the last of them has come, the
    messages of the interval wait here. They are no part of a snapshot, which is taken as of the first of them.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        """Events left out, by stream and policy."""
        self._schedules: dict[str, Schedule] = {}
        self._held: dict[str, list[KafkaRecord]] = {}

    def schedule(self, topic: str) -> Schedule:
        """The decisions about a topic."""
        return self._schedules.setdefault(topic, Schedule())

    def follow(self, topic: str, schedule: Schedule) -> None:
        """Leave out of a topic what was decided elsewhere."""
        self._schedules[topic] = Schedule(schedule)

    @property
    def known(self) -> bool:
        """Whether anything was ever decided."""
        return any(schedule.end for schedule in self._schedules.values())

    def held(self, topic: str) -> int | None:
        """Offset of the first message of a topic that waits."""
        waiting = self._held.get(topic)
        return waiting[0].offset if waiting else None

    def released(self, topic: str, records: Sequence[KafkaRecord]) -> Sequence[KafkaRecord]:
        """The messages of a topic that can be used now, of those that waited and these."""
        schedule = self._schedules.get(topic)
        if schedule is None or not records:
            return records
        waited = self._held.pop(topic, [])
        if waited:
            records = [*waited, *(each for each in records if each.offset > waited[-1].offset)]
        last = records[-1].offset
        open_interval = schedule.at(last)
        if open_interval is None or open_interval.policy != "latest" or last >= open_interval.end - 1:
            return records
        ready = [each for each in records if each.offset < open_interval.first]
        self._held[topic] = list(records[len(ready) :])
        return ready

    def rest(self) -> dict[str, list[KafkaRecord]]:
        """All messages that wait, by topic; none waits any more."""
        held, self._held = self._held, {}
        return {topic: records for topic, records in held.items() if records}

    def kept(self, topic: str, frames: list[SourcedFrame], *, counted: bool = True) -> tuple[list[SourcedFrame], int]:
        """The frames of a topic without what is left out, with their weights; and the number of events left out.

        That is 0, and ``counts`` stay, for a topic that is not ``counted`` here. A frame of which everything is left
        out stays, without rows: it may say how far event time is. What was a dead letter and was sent again is not left
        out.
        """
        schedule = self._schedules.get(topic)
        if schedule is None or not frames:
            return frames, 0
        first = min(each.offset for each in frames)
        last = max(each.offset if each.offsets is None else int(each.offsets[-1]) for each in frames)
        intervals = schedule.between(first, last)
        if not intervals:
            return frames, 0
        newest = _newest(frames, [each for each in intervals if each.policy == "latest"])
        kept: list[SourcedFrame] = []
        left: list[_Left] = []
        for number, sourced in enumerate(frames):
            if sourced.frame.origin == RETRY_ORIGIN or not sourced.frame.num_rows:
                kept.append(sourced)
                continue
            kept += _divided(sourced, intervals, newest.get(number), left)
        for each in left if counted else ():
            self.counts.setdefault(each.stream, Counter())[each.policy] += each.events
        return kept, sum(each.events for each in left) if counted else 0

    def snapshot(self, positions: Mapping[str, int]) -> dict[str, Any]:
        """State as JSON values; ``positions`` are the next offsets of the topics."""
        for topic, schedule in self._schedules.items():
            schedule.forget(positions.get(topic, 0))
        schedules = {topic: schedule.snapshot() for topic, schedule in self._schedules.items()}
        return {"counts": self.counts, "schedules": schedules}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the state of `snapshot`, which is empty where an earlier version wrote it."""
        self.counts = {stream: Counter(counts) for stream, counts in snapshot.get("counts", {}).items()}
        self._held.clear()
        self._schedules = {
            topic: Schedule(Interval(*each) for each in intervals)
            for topic, intervals in snapshot.get("schedules", {}).items()
        }


def left_out_lines(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence on each stream of which events were left out while a worker was behind."""
    return [
        f"left out of stream {stream!r} while the worker was behind: "
        + ", ".join(f"{count:,} by {policy}" for policy, count in sorted(counts.items()))
        for stream, counts in left_out.items()
    ]


def _offsets(sourced: SourcedFrame) -> NDArray[np.int64]:
    if sourced.offsets is not None:
        return sourced.offsets
    return np.full(sourced.frame.num_rows, sourced.offset, np.int64)


def _divided(
    sourced: SourcedFrame, intervals: Sequence[Interval], newest: NDArray[np.bool_] | None, left: list[_Left]
) -> list[SourcedFrame]:
    """The parts of a frame, each with the rows of one weight; what is left out is added to ``left``."""
    offsets, frame = _offsets(sourced), sourced.frame
    stay, shares = np.ones(len(offsets), np.bool_), np.ones(len(offsets))
    for interval in intervals:
        inside = (offsets >= interval.first) & (offsets < interval.end)
        if not inside.any():
            continue
        if interval.policy == "sample":
            chosen = is_kept(frame.ids(), interval.share)
            shares[inside] = interval.share
        elif interval.policy == "latest" and newest is not None:
            chosen = newest
        else:
            chosen = np.zeros(len(offsets), np.bool_)
        gone = int((inside & ~chosen).sum())
        stay &= chosen | ~inside
        if gone:
            left.append(_Left(frame.stream, interval.policy, gone))
    if stay.all() and (shares == 1).all():
        return [sourced]
    edges = np.flatnonzero(np.diff(shares)) + 1
    parts = []
    for rows in np.split(np.arange(len(offsets)), edges):
        part = sourced.take(rows[stay[rows]])
        parts.append(replace(part, frame=replace(part.frame, weight=frame.weight / float(shares[rows[0]]))))
    return parts


def _newest(frames: Sequence[SourcedFrame], intervals: Sequence[Interval]) -> dict[int, NDArray[np.bool_]]:
    """By frame, for the rows in intervals of ``latest``: which are the last of their key in their interval."""
    found: dict[int, NDArray[np.bool_]] = {}
    for interval in intervals:
        seen: set[tuple[str, str | None]] = set()
        for number in reversed(range(len(frames))):
            frame = frames[number].frame
            offsets = _offsets(frames[number])
            inside = np.flatnonzero((offsets >= interval.first) & (offsets < interval.end))
            if not len(inside) or frame.origin == RETRY_ORIGIN:
                continue
            flags = found.setdefault(number, np.zeros(len(offsets), np.bool_))
            keys = frame.column("key").to_pylist()
            for row in reversed(inside.tolist()):
                key = (frame.run, keys[row])
                if key not in seen:
                    seen.add(key)
                    flags[row] = True
    return found
