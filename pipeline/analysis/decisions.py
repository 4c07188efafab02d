"""A domain that repeats what a worker decided by its clock, at the positions at which it did."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from astrocyte.agents.domain import Domain, DomainOutput
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.topics import TopicPartition

__all__ = ["RepeatedDecisions"]


class RepeatedDecisions:
    """A domain over the messages of a log, with the decisions that a worker recorded in `control.clock`.

    Each record there names the next offset of every topic. Messages after it wait here until the topics before it have
    come so far, because a decision says something of all topics: an idle topic is left behind by what the others have
    sent until then. ``present`` are the topics of which the log holds messages for this partition, the others are not
    waited for. Without ``waits``, messages are fed as they come: positions in copies are not those of the worker.
    """

    def __init__(
        self,
        domain: Domain,
        topics: Iterable[str],
        entries: Iterable[Mapping[str, Any]] = (),
        *,
        present: Collection[str] = (),
        waits: bool = True,
    ) -> None:
        self.domain = domain
        self.topics = frozenset(topics)
        self._entries = deque(entries)
        self._present = self.topics & set(present)
        self._waits = waits
        self._named: set[str] = set()
        """Topics that the worker is known to have read; of one that it did not, decisions say nothing."""
        self._held: dict[str, list[KafkaRecord]] = {}

    def feed(self, topic: str, records: Sequence[KafkaRecord]) -> Iterator[DomainOutput]:
        """Outputs of messages of one topic, in offset order, as far as they need not wait for other topics."""
        self._held.setdefault(topic, []).extend(records)
        yield from self.settle()

    def settle(self, before: int | None = None) -> Iterator[DomainOutput]:
        """Outputs of the decisions whose positions are reached; ``before``: only of records up to this offset."""
        yield from self._decide(before)
        while released := [*self._release()]:
            yield from released
            yield from self._decide(before)

    def finish(self) -> Iterator[DomainOutput]:
        """Outputs of what waits: the log ends before some of the positions, so nothing more is waited for."""
        while self._entries and any(self._held.values()):
            yield self._repeat(self._entries.popleft())
            yield from self.settle()

    def _decide(self, before: int | None) -> Iterator[DomainOutput]:
        while self._entries and self._is_reached(self._entries[0]):
            if before is not None and self._entries[0].get("at", 0) >= before:
                return
            yield self._repeat(self._entries.popleft())

    def _release(self) -> Iterator[DomainOutput]:
        """Feed what lies before the next decision."""
        for topic, records in list(self._held.items()):
            count = len(records)
            limit = self._limit(topic) if self._entries else None
            if count and limit is not None and records[-1].offset >= limit:
                count = bisect_left(records, limit, key=attrgetter("offset"))
                if count == 0 and not self._waits:
                    count = len(records)
            if count:
                part = records[:count]
                del records[:count]
                yield self.domain.feed(topic, part)

    def _limit(self, topic: str) -> int | None:
        """Offset before which messages precede the next decision; None if that says nothing of the topic."""
        position: int | None = self._entries[0]["positions"].get(topic)
        if position is None and self._waits and topic in self._named:
            return 0  # the worker read the topic and had processed nothing of it
        return position

    def _is_reached(self, entry: Mapping[str, Any]) -> bool:
        topics = self._present if self._waits else self.topics
        return all(
            # What waits lies after the position: there is nothing between, such as where a transaction ended.
            self.domain.positions.get(topic, 0) >= offset or (self._waits and self._first_held(topic) >= offset)
            for topic, offset in entry["positions"].items()
            if topic in topics
        )

    def _first_held(self, topic: str) -> int:
        held = self._held.get(topic)
        return held[0].offset if held else -1

    def _repeat(self, entry: Mapping[str, Any]) -> DomainOutput:
        """What a worker decided, in the order in which it did."""
        domain, asserting = self.domain, bool(entry.get("asserting"))
        idle, active = (
            [TopicPartition(name, domain.partition) for name in entry.get(state, ())] for state in ("idle", "active")
        )
        output = domain.mark_idle(idle, asserting=asserting)
        if entry.get("trusted_us") is not None:
            output.extend(domain.trust(entry["trusted_us"], idle))
        if entry.get("until_us") is not None:
            output.extend(domain.mark_all_idle(entry["until_us"]))
        output.extend(domain.activate(active, asserting=asserting))
        self._named.update(entry["positions"], (place.topic for place in active))
        return output
