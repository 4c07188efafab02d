"""Whether a role makes progress where there is work: which partitions stand still, why, and whether a restart helps.

A partition stands still if its position and its acknowledgements do not change although records wait. Waiting for a
store or a broker that is away is no reason to restart: the next process would wait as well. Waiting for event time does
not stop a partition (`pipeline.roles.stalls`). Only time in which this process ran counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from astrocyte.pipeline.kafka.partition_end import Position
from astrocyte.pipeline.watch.running_time import RunningTime
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import TopicPartition

__all__ = ["LONG", "REMEDIES", "Observation", "ProgressWatch", "Standstill", "Why"]

logger = logging.getLogger(__name__)

Why = Literal["broker", "store", "unwritten", "paused", "restoring", "busy", "unanswered", "behind", "hangs"]

LONG: Final = 10
"""Work that may take long is given this many times the time limit: a start, a restored state, one write to a store."""
_PATIENT: Final[frozenset[Why]] = frozenset(("restoring", "busy", "unanswered"))
_EXCUSED: Final[frozenset[Why]] = frozenset(("broker", "store", "unwritten", "paused"))
"""A restart would change nothing."""
_INTERVAL_S: Final = 60.0
"""Time between two log lines of one reason."""

REMEDIES: Final[Mapping[Why, str]] = {
    "broker": "the broker is away; look at it and at the connection to it. The role goes on by itself",
    "store": "the store does not take what is written; look at it. The role retries without limit",
    "unwritten": "the broker does not confirm what the role writes; look at it and at its disk",
    "paused": "the role has paused it; look at the lines above",
    "restoring": "its state is being restored; wait. A state that is large takes minutes",
    "busy": "work that may take long is not done; look at the store, and at its time limits",
    "unanswered": "the broker does not answer fetches of it; look whether its leader is there",
    "behind": "the role is busy with its other partitions; start more workers",
    "hangs": "the agent does not return; look at validators, decoders, sinks and agents of your own, and at their time "
    "limits. It is started again after ASTROCYTE_LIVENESS_TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look needs to know of a role."""

    positions: Mapping[TopicPartition, Position]
    connected: bool = True
    dividing: bool = False
    """Partitions are being divided among the members of the group."""
    store: str = ""
    """Why the store does not take what is written; empty if it does."""
    unwritten: str = ""
    """Why the broker does not confirm what is written; empty if it does."""
    busy: str = ""
    """Work that is under way and may take long."""
    busy_s: float = 0.0
    """For how long it has been."""
    queued: int = 0
    """Chunks that were handed out and that the agent has not taken yet."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """A partition that does not advance although records wait."""

    place: TopicPartition
    why: Why
    detail: str
    unread: int
    held: int
    since_us: int
    """By this machine's clock."""

    def as_json(self) -> dict[str, Any]:
        """The standstill as JSON values."""
        return {
            "topic": self.place.topic,
            "partition": self.place.partition,
            "why": self.why,
            "unread": self.unread,
            "held": self.held,
            "since": iso_from_us(self.since_us),
            "line": _line_of([self]),
            "remedy": REMEDIES[self.why],
        }


@dataclass(slots=True)
class _Place:
    mark: tuple[object, ...]
    moved_s: float


@dataclass(slots=True)
class ProgressWatch:
    """Watches the partitions of one role. ``look`` is called about once a second.

    ``timeout_s``: without progress for so long the role hangs; 0: never. ``report_s``: how long a partition may stand
    still before it is reported. ``acknowledges_s``: time after which a chunk that was handed out is acknowledged at
    the latest when all is well; None if that is not known, as of a role that keeps chunks for as long as it likes.
    """

    timeout_s: float
    report_s: float
    acknowledges_s: float | None = None
    say: Callable[[str], None] = logger.warning
    standstills: list[Standstill] = field(default_factory=list)
    hangs: str = ""
    """Why the role has to be started again; empty if it has not."""
    _time: RunningTime = field(default_factory=RunningTime)
    _known: Mapping[TopicPartition, Position] = field(default_factory=dict)
    _places: dict[TopicPartition, _Place] = field(default_factory=dict)
    _moved_s: float = 0.0
    """When any partition last advanced, or none had to."""
    _said_s: dict[Why, float] = field(default_factory=dict)
    _said: set[TopicPartition] = field(default_factory=set)

    def look(self, seen: Observation, now_s: float, now_us: int) -> None:
        """Find what stands still and what goes on again, and log it."""
        self._time.look(now_s)
        if seen.connected:
            self._known = seen.positions
        else:
            # What waits is not known now; it was known when the broker went away.
            seen = replace(seen, positions=self._known)
        moved = self._find_moved(seen)
        found = []
        pending: list[tuple[Why, float]] = []
        for place, position in sorted(seen.positions.items()):
            waits, extra_s = self._waits(seen, position)
            if not waits:
                self._places[place].moved_s = self._time.seconds
                continue
            stands_s = self._time.seconds - self._places[place].moved_s
            why, detail = self._reason(seen, position)
            pending.append((why, extra_s))
            if stands_s >= self.report_s + extra_s:
                since_us = now_us - int(stands_s * 1e6)
                found.append(Standstill(place, why, detail, position.unread, position.held, since_us))
        self._find_hang(pending, moved=moved, seen=seen)
        self._log(found, seen)
        self.standstills = found

    def _find_moved(self, seen: Observation) -> bool:
        """Note which partitions have advanced since the last look; returns whether any has."""
        moved = False
        for place, position in seen.positions.items():
            mark = (position.placed, position.read, position.acknowledged, position.acks)
            known = self._places.get(place)
            if known is None or known.mark != mark or seen.dividing:
                self._places[place] = _Place(mark, self._time.seconds)
                moved = True
        for place in self._places.keys() - seen.positions.keys():
            del self._places[place]
        return moved

    def _waits(self, seen: Observation, position: Position) -> tuple[bool, float]:
        """Whether records of a partition wait, and how much longer than usual that may take."""
        if not position.placed or position.unread:
            return True, 0.0
        if position.held and self.acknowledges_s is not None:
            return True, self.acknowledges_s
        return bool(position.held and seen.queued), 0.0

    def _reason(self, seen: Observation, position: Position) -> tuple[Why, str]:
        if not seen.connected:
            return "broker", "the broker does not answer"
        if seen.store:
            return "store", seen.store
        if seen.unwritten:
            return "unwritten", seen.unwritten
        if position.paused:
            return "paused", "its delivery is paused"
        if not position.placed:
            return "restoring", "it is not known yet where reading begins"
        if seen.busy and seen.busy_s >= self.report_s:
            return "busy", f"{seen.busy}, for {seen.busy_s:.0f} s"
        if not position.answered and not any(each.held for each in seen.positions.values()):
            return "unanswered", "the broker does not answer its fetches"
        if self._time.seconds - self._moved_s < self.report_s:
            return "behind", "other partitions of this role advance"
        if seen.busy:
            return "busy", f"one piece of work follows another, at present: {seen.busy}"
        return "hangs", "nothing that was handed to the agent is finished"

    def _find_hang(self, pending: Sequence[tuple[Why, float]], *, moved: bool, seen: Observation) -> None:
        pending = [(why, extra_s) for why, extra_s in pending if why not in _EXCUSED]
        if moved or seen.dividing or not pending:
            self._moved_s = self._time.seconds
            self.hangs = ""
            return
        limit_s = self.timeout_s * (LONG if all(why in _PATIENT for why, _ in pending) else 1)
        limit_s += min(extra_s for _, extra_s in pending)
        stands_s = self._time.seconds - self._moved_s
        if self.timeout_s and stands_s >= limit_s:
            why = next((why for why, _ in pending if why not in _PATIENT), pending[0][0])
            self.hangs = f"nothing was read or acknowledged for {stands_s:.0f} s although records wait: {REMEDIES[why]}"

    def _log(self, found: Sequence[Standstill], seen: Observation) -> None:
        by_why: dict[Why, list[Standstill]] = {}
        for each in found:
            by_why.setdefault(each.why, []).append(each)
        for why, items in by_why.items():
            fresh = any(each.place not in self._said for each in items)
            if fresh and self._time.seconds - self._said_s.get(why, -_INTERVAL_S) >= _INTERVAL_S:
                self._said_s[why] = self._time.seconds
                self._said |= {each.place for each in items}
                self.say(f"{_line_of(items)}; {REMEDIES[why]}")
        over = self._said - {each.place for each in found}
        if over:
            self._said -= over
            here = sorted(over & seen.positions.keys())
            if here:
                self.say(f"{_names(here)}: reading goes on")


def _names(places: Sequence[TopicPartition]) -> str:
    names = ", ".join(f"{place.topic}[{place.partition}]" for place in places[:5])
    return f"{names} and {len(places) - 5} more" if len(places) > 5 else names


def _line_of(items: Sequence[Standstill]) -> str:
    """One line for the partitions that stand still for the same reason."""
    unread, held = sum(each.unread for each in items), sum(each.held for each in items)
    since_us = min(each.since_us for each in items)
    return (
        f"{_names([each.place for each in items])}: no progress since {iso_from_us(since_us)}, {unread:,} records are "
        f"not read and {held:,} chunks not acknowledged: {items[0].detail}"
    )
