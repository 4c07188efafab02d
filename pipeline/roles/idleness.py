"""Which topics of one domain are idle, by what the broker has answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.schemas.topics import TopicPartition

__all__ = ["Idleness"]


@dataclass(slots=True)
class Idleness:
    """When each topic was last active, and which topics are idle. Times are monotonic seconds.

    Topics of junctions are not among them: whoever writes them says how far event time is.

    A topic is silent for as long as answered fetches found it at its end with nothing left to process. Neither the
    wall clock nor the age of its last chunk counts: both grow while this process is stopped or behind.
    """

    at_end: Callable[[TopicPartition], AtEnd | None]
    heard_s: dict[TopicPartition, float] = field(default_factory=dict)
    handled: dict[TopicPartition, int] = field(default_factory=dict)
    """Offset after the newest chunk of each topic that was processed since the topic was assigned."""
    moved: set[TopicPartition] = field(default_factory=set)
    """Topics whose ends moved although nothing was sent, by a chunk that said so; see `reported_silent`."""
    idle: set[TopicPartition] = field(default_factory=set)
    given_up: set[TopicPartition] = field(default_factory=set)
    """Idle topics whose producers assert watermarks and are no longer waited for."""

    def assigned(self, place: TopicPartition, now_s: float) -> None:
        """Reading of a topic begins."""
        self.heard_s[place] = now_s
        self.handled.pop(place, None)
        self._heard(place)

    def processed(self, place: TopicPartition, next_offset: int, now_s: float) -> None:
        """A chunk that ends before ``next_offset`` is done."""
        self.heard_s[place] = now_s
        self.handled[place] = next_offset
        self._heard(place)

    def reported_silent(self, place: TopicPartition, next_offset: int) -> None:
        """A chunk is done that said only that sources of the topic are silent: this ends no silence."""
        self.handled[place] = next_offset
        self.moved.add(place)

    def restart(self, now_s: float) -> None:
        """Begin to wait for every topic anew."""
        self.heard_s = dict.fromkeys(self.heard_s, now_s)
        self.idle.clear()
        self.given_up.clear()

    def silent_s(self, place: TopicPartition) -> float:
        """For how long the topic is known to be silent; zero while it is not at its end."""
        end = self.at_end(place)
        if end is None or end.is_queued(self.handled.get(place)):
            return 0.0
        since_s = end.reading_since_s if place in self.moved else end.since_s
        return max(0.0, end.until_s - max(since_s, self.heard_s.get(place, since_s)))

    def silent(self, timeout_s: float) -> set[TopicPartition]:
        """Topics that are known to be silent for so long."""
        return {place for place in self.heard_s if self.silent_s(place) >= timeout_s}

    @property
    def all_idle(self) -> bool:
        """Whether every topic is idle."""
        return len(self.idle) == len(self.heard_s)

    def _heard(self, place: TopicPartition) -> None:
        self.moved.discard(place)
        self.idle.discard(place)
        self.given_up.discard(place)
