"""Why event time stands still: which group of a domain waits for which source, since when, and what to do about it.

A group stalls if its watermark has not advanced for a set time although something waits: rows for the watermark, events
whose clocks are doubted, records that are not read yet, or copies of events that the `repartition` role owes. Only time
in which this process ran counts. A stall changes no result; it is logged, shown by ``astrocyte health``, and a metric.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from astrocyte.agents.domain import Domain
from astrocyte.agents.event_time.sources import Holder, Source
from astrocyte.agents.lane import GroupTime
from astrocyte.pipeline.kafka.partition_end import Unread
from astrocyte.pipeline.roles.idleness import Idleness
from astrocyte.pipeline.watch.running_time import RunningTime
from astrocyte.schemas.times import NEVER_US, iso_from_us
from astrocyte.schemas.topics import TopicPartition

__all__ = ["Stall", "StallWatch", "Standing", "Why", "doubt_line"]

logger = logging.getLogger(__name__)

Why = Literal[
    "repartition", "paused", "unanswered", "behind", "queued", "unwritten", "asserts", "stands", "never", "silent",
    "doubted", "others", "upstream",
]  # fmt: skip

_PASSING: Final[frozenset[Why]] = frozenset(("never", "silent", "others"))
"""What ends by itself, by the clock."""
_INTERVAL_S: Final = 60.0
"""Time between two log lines of one group and source."""


@dataclass(frozen=True, slots=True)
class Stall:
    """One group of one domain that waits, and the source for which it does."""

    partition: int
    by: str
    topic: str
    origin: str
    why: Why
    detail: str
    """Sentence on the source and what to do."""
    waiting: int
    watermark_us: int
    since_us: int
    """By this machine's clock."""
    others: int = 0
    """Number of other sources for which it waits as well."""

    def as_json(self) -> dict[str, Any]:
        """The stall as JSON values, for `control.stats`."""
        return {
            "partition": self.partition,
            "by": self.by or None,
            "topic": self.topic,
            "origin": self.origin,
            "why": self.why,
            "passes": self.why in _PASSING,
            "waiting": self.waiting,
            "since": iso_from_us(self.since_us),
            "line": _line_of([self]),
        }


def _line_of(stalls: Sequence[Stall]) -> str:
    """One line for the stalls of several partitions by the same cause."""
    first = stalls[0]
    numbers = ", ".join(str(each.partition) for each in stalls)
    places = f"partition {numbers}" if len(stalls) == 1 else f"partitions {numbers}"
    waiting = sum(each.waiting for each in stalls)
    what = f"{waiting:,} events wait" if waiting else "nothing comes out"
    since_us = min(each.since_us for each in stalls)
    begun = first.watermark_us > NEVER_US
    stands = f"event time stands at {iso_from_us(first.watermark_us)}" if begun else "event time has not begun"
    others = f" (and {first.others} other sources)" if first.others else ""
    return (
        f"{places}, rules by {first.by or 'null'}: {what} since {iso_from_us(since_us)} and {stands}; "
        f"it waits for {first.topic}{f' of {first.origin}' if first.origin else ''}{others}: {first.detail}"
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """What one look needs to know of the domain of a partition."""

    domain: Domain
    sources: Idleness
    unwritten: bool = False
    """The broker takes no records, or has not confirmed too many of them."""


@dataclass(slots=True)
class _Group:
    """What is remembered of one group of one domain. Times are counted seconds."""

    watermark_us: int
    moved_s: float
    stall: Stall | None = None


@dataclass(slots=True)
class _Owed:
    """Events of a chunk were read of which no copy has come."""

    first: int
    """Offset at which the chunk begins."""
    since_s: float
    last: int
    """Offset at which the newest such chunk begins."""


@dataclass(slots=True)
class _Partition:
    groups: dict[str, _Group] = field(default_factory=dict)
    owed: dict[str, _Owed] = field(default_factory=dict)
    """By topic of copies."""


@dataclass(slots=True)
class StallWatch:
    """Watches the groups of all domains of a worker. ``look`` is called about once a second.

    ``copies`` names the original of each topic of copies, ``makers`` what makes the results in topics of other groups
    (such as ``rules by key``) and its role; ``unread`` says why a partition is not known to be at its
    end. ``timeout_s``: how long a watermark may stand still; sources become idle after ``idle_s``, and silent producers
    that assert watermarks are given up after ``producer_s``.
    """

    timeout_s: float
    idle_s: float
    producer_s: float
    unread: Callable[[TopicPartition], Unread | None] = lambda _place: None
    copies: Mapping[str, str] = field(default_factory=dict)
    makers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    say: Callable[[str], None] = logger.warning
    _time: RunningTime = field(default_factory=RunningTime)
    _partitions: dict[int, _Partition] = field(default_factory=dict)
    _said_s: dict[tuple[str, str, Why], float] = field(default_factory=dict)
    _said: set[tuple[int, str]] = field(default_factory=set)
    """Groups whose stall was logged and is not over."""

    @property
    def stalls(self) -> list[Stall]:
        """What waits now."""
        return [stall for partition in sorted(self._partitions) for stall in self.of(partition)]

    def of(self, partition: int) -> list[Stall]:
        """What waits in the domain of a partition."""
        part = self._partitions.get(partition)
        groups = () if part is None else part.groups.values()
        return [group.stall for group in groups if group.stall is not None]

    def drop(self, partition: int) -> None:
        """The partition was revoked."""
        self._partitions.pop(partition, None)
        self._said = {place for place in self._said if place[0] != partition}

    def processed(self, place: TopicPartition, first: int, events: int) -> None:
        """A chunk of a topic from an offset on is done; ``events`` of it were no dead letters."""
        part = self._partitions.setdefault(place.partition, _Partition())
        for copy, source in self.copies.items() if events else ():
            if source == place.topic:
                part.owed.setdefault(copy, _Owed(first, self._time.seconds, first)).last = first

    def _settle(self, part: _Partition, domain: Domain) -> None:
        """Forget the chunks of which copies have come, before or after the chunk itself."""
        for copy, owed in list(part.owed.items()):
            through = domain.copied_through(copy)
            if through > owed.last:
                del part.owed[copy]
            elif through > owed.first:
                owed.first, owed.since_s = owed.last, self._time.seconds

    def look(self, standing: Mapping[int, Standing], now_s: float, now_us: int) -> list[int]:
        """Find what stalls and what goes on again, and log it; returns the partitions of which this changed."""
        self._time.look(now_s)
        changed = []
        begun: list[Stall] = []
        for partition, each in sorted(standing.items()):
            part = self._partitions.setdefault(partition, _Partition())
            self._settle(part, each.domain)
            before = [(name, _cause(group.stall)) for name, group in part.groups.items()]
            doubted = each.domain.doubted
            for time in each.domain.groups_time:
                self._look_at(partition, each, time, doubted, now_us)
            if before != [(name, _cause(group.stall)) for name, group in part.groups.items()]:
                changed.append(partition)
            begun += [group.stall for group in part.groups.values() if group.stall is not None]
        self._log(begun)
        return changed

    def _look_at(
        self, partition: int, each: Standing, time: GroupTime, doubted: Mapping[str, int], now_us: int
    ) -> None:
        part = self._partitions[partition]
        group = part.groups.get(time.field)
        if group is None:
            group = part.groups[time.field] = _Group(time.watermarks.watermark_us, self._time.seconds)
            self._find_owed(part, each.domain, time)
        owed = {
            copy: self._time.seconds - debt.since_s for copy, debt in sorted(part.owed.items())
            if copy in time.topics and self._time.seconds - debt.since_s >= self.timeout_s
        }  # fmt: skip
        moved = time.watermarks.watermark_us != group.watermark_us
        if moved and not owed:
            self._goes_on(group, partition, time)
            return
        places = [TopicPartition(topic, partition) for topic in sorted(time.topics)]
        unread = {place: found for place in places if (found := self.unread(place)) is not None}
        read = {self.copies.get(topic, topic) for topic in time.topics}
        doubted = {topic: count for topic, count in doubted.items() if topic in read}
        waits = time.waiting or doubted or any(found.why == "behind" for found in unread.values())
        waits = waits or self._makers_lag(each.domain, time)
        if not owed and not waits:
            self._goes_on(group, partition, time)
            return
        if moved:
            group.watermark_us, group.moved_s = time.watermarks.watermark_us, self._time.seconds
        seconds = max(self._time.seconds - group.moved_s if waits else 0.0, *owed.values(), 0.0)
        if seconds < self.timeout_s:
            return
        since_us = group.stall.since_us if group.stall is not None else now_us - int(seconds * 1e6)
        source, why, detail, others = self._reason(each, time, unread, owed, doubted)
        group.stall = Stall(
            partition, time.field, source.topic, source.origin, why, detail,
            time.waiting + sum(doubted.values()), time.watermarks.watermark_us, since_us, others,
        )  # fmt: skip

    def _makers_lag(self, domain: Domain, time: GroupTime) -> bool:
        """Whether results of others are waited for that have not come as far as the events of this domain."""
        newest_us = domain.newest_us
        if newest_us is None or newest_us <= time.watermarks.watermark_us:
            return False
        return any(holder.source.topic in self.makers for holder in time.watermarks.holders())

    def _find_owed(self, part: _Partition, domain: Domain, time: GroupTime) -> None:
        """A domain that was restored may have read events of which no copy has ever come."""
        for copy in time.topics & self.copies.keys():
            read = domain.positions.get(self.copies[copy], 0) and domain.counters.processed
            if read and not domain.copied_through(copy):
                part.owed.setdefault(copy, _Owed(0, self._time.seconds, 0))

    def _reason(
        self,
        each: Standing,
        time: GroupTime,
        unread: Mapping[TopicPartition, Unread],
        owed: Collection[str],
        doubted: Mapping[str, int],
    ) -> tuple[Source, Why, str, int]:
        """The source that is waited for, why, a sentence, and the number of others."""
        partition = each.domain.partition
        holders = time.watermarks.holders()
        if owed:
            # Whatever else it waits for: these events cannot come.
            copy = next(iter(owed))
            return Source(copy, partition), "repartition", _of_repartition(self.copies[copy]), len(owed) - 1
        if not holders:
            behind = [place for place, found in unread.items() if found.why == "behind"]
            if behind:
                holders = [Holder(Source(*place), NEVER_US, asserts=False) for place in behind]
            elif doubted:
                topic = max(sorted(doubted), key=lambda name: doubted[name])
                return Source(topic, partition), "doubted", doubt_line(sum(doubted.values())), 0
            else:
                return self._of_others(each, time)
        found = [(holder, *self._why(each, holder, unread.get(holder.source.place))) for holder in holders]
        if doubted and all(why in ("never", "silent", "stands") for _, why, _ in found):
            return found[0][0].source, "doubted", doubt_line(sum(doubted.values())), len(found) - 1
        holder, why, detail = min(found, key=lambda item: _ORDER.index(item[1]))
        return holder.source, why, detail, len(found) - 1

    def _why(self, each: Standing, holder: Holder, unread: Unread | None) -> tuple[Why, str]:
        place = holder.source.place
        sources = each.sources
        if unread is not None:
            return unread.why, _OF_UNREAD[unread.why].format(records=f"{unread.records:,}")
        end = sources.at_end(place)
        if end is not None and end.is_queued(sources.handled.get(place)):
            why: Why = "unwritten" if each.unwritten else "queued"
            return why, _OF_WORKER[why]
        if end is None and place.topic in self.copies:
            return "repartition", _of_repartition(self.copies[place.topic])
        if (made := self.makers.get(place.topic)) is not None:
            return "upstream", _OF_MAKER.format(maker=made[0], role=made[1], partition=place.partition)
        if place.topic in each.domain.linked:
            return "upstream", _UPSTREAM.format(domain=holder.source.origin.rpartition("/")[2] or "any")
        silent_s = sources.silent_s(place)
        begun = holder.watermark_us > NEVER_US
        if silent_s < min(self.idle_s, self.timeout_s) and (begun or holder.asserts):
            return "stands", _OF_TIMES
        if holder.asserts:
            what = "sends watermarks and" if begun else "was announced by another, has sent nothing yet and"
            return "asserts", (
                f"its producer {what} is silent for {silent_s:.0f} s; it is given up after {self.producer_s:.0f} s "
                "(ASTROCYTE_PRODUCER_TIMEOUT). Start it again, or lower that time"
            )
        if each.unwritten and silent_s >= self.idle_s:
            return "unwritten", _OF_WORKER["unwritten"]
        quiet = f"its topic is silent for {silent_s:.0f} s" if silent_s >= 1 else "its topic is not silent"
        return "silent" if begun else "never", (
            f"{quiet if begun else f'nothing has come from it yet, and {quiet}'}; after {self.idle_s:.0f} s of silence "
            "(ASTROCYTE_IDLE_TIMEOUT) it is idle and no longer delays event time"
        )

    def _of_others(self, each: Standing, time: GroupTime) -> tuple[Source, Why, str, int]:
        """All sources of the group are idle: its time follows the clock as soon as all topics of the domain are."""
        sources = each.sources
        busy = sorted(
            (place for place in sources.heard_s if place.topic not in time.topics),
            key=sources.silent_s,
        )  # fmt: skip
        place = busy[0] if busy else TopicPartition(min(time.topics), each.domain.partition)
        return Source(*place), "others", (
            "all sources of these rules are idle, and event time goes on with the clock once every topic that this "
            "worker reads is; its last events come out then, or with the next events of their streams"
        ), 0  # fmt: skip

    # -- the log -----------------------------------------------------------------------------------------------------

    def _log(self, stalls: Iterable[Stall]) -> None:
        for cause, found in _together(stalls):
            if all((each.partition, each.by) in self._said for each in found):
                continue
            if self._time.seconds - self._said_s.get(cause, -_INTERVAL_S) < _INTERVAL_S:
                continue
            self._said_s[cause] = self._time.seconds
            self._said |= {(each.partition, each.by) for each in found}
            self.say(_line_of(found))

    def _goes_on(self, group: _Group, partition: int, time: GroupTime) -> None:
        """Event time has advanced, or nothing waits for it."""
        reached_us = time.watermarks.watermark_us
        if group.stall is not None and (partition, time.field) in self._said:
            self._said.discard((partition, time.field))
            seconds = self._time.seconds - group.moved_s
            how = "nothing waits any more"
            if reached_us != group.watermark_us:
                how = (
                    "event time begins anew"
                    if reached_us == NEVER_US
                    else f"event time goes on at {iso_from_us(reached_us)}"
                )
            self.say(f"partition {partition}, rules by {time.field or 'null'}: {how} after {seconds:.0f} s")
        group.stall = None
        group.watermark_us, group.moved_s = reached_us, self._time.seconds


_ORDER: Final[tuple[Why, ...]] = (
    "paused", "unanswered", "behind", "repartition", "unwritten", "queued", "asserts", "stands", "never", "silent",
    "upstream",
)  # fmt: skip
"""Of several sources, the one that most needs someone is named."""
_OF_UNREAD: Final = {
    "paused": "its delivery is paused, because what it is written to takes no more; look at the lines above",
    "unanswered": "the broker has not said where it ends; look at the broker and at the connection to it",
    "behind": "{records} of its records are not read yet; start more workers, or look for what keeps this one busy",
}
_OF_WORKER: Final[dict[Why, str]] = {
    "queued": "records that were read wait in this worker; look for what keeps it busy",
    "unwritten": "the broker does not confirm what this worker writes; look at the broker and its disk",
}
_UPSTREAM: Final = (
    "the rules from which this junction comes are no further in domain {domain}; look at what is said of that partition"
)
_OF_MAKER: Final = (
    "its results come from the {maker} (role {role}), of which event time in partition {partition} is no further, or "
    "which does not run; look at what is said of it there, or start it: astrocyte worker --role {role}"
)
_OF_TIMES: Final = (
    "its topic is not silent, but nothing with a later time comes from this source: look at the times of its events; a "
    "producer that has ended without saying so must be started again"
)


def _of_repartition(source: str) -> str:
    return (
        f"no copies come of the events of {source} that were read; the role repartition does not run or is behind, or "
        "it refused all of them. Start it: astrocyte worker --role repartition, or look at the topic dead_letters"
    )


def doubt_line(events: int) -> str:
    """What is said of events whose clocks are doubted."""
    be, they, are = ("1 event is", "it waits", "is") if events == 1 else (f"{events:,} events are", "they wait", "are")
    return (
        f"{be} further ahead of Kafka's time and of all other keys than ASTROCYTE_CLOCK_TOLERANCE; "
        f"{they} until other events show whether the clock is right, and {are} counted only then"
    )


def _cause(stall: Stall | None) -> tuple[str, str, Why] | None:
    return None if stall is None else (stall.topic, stall.origin, stall.why)


def _together(stalls: Iterable[Stall]) -> Iterator[tuple[tuple[str, str, Why], list[Stall]]]:
    """Stalls of several partitions by the same cause."""
    found: dict[tuple[str, str, Why], list[Stall]] = {}
    for stall in stalls:
        found.setdefault((stall.by, stall.topic, stall.why), []).append(stall)
    yield from found.items()
