"""Whether a topic of copies is silent: only where nothing of its original is still to be copied.

That nothing comes in a topic of copies says nothing by itself, as the role that writes them may be slow or away. So the
broker is asked where the original ends, and a copy counts as silent up to a moment at which the domain had read copies
of all that was there. An answer that does not come proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from astrocyte.agents.domain import Domain
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.schemas.topics import TopicPartition

__all__ = ["CopyEnds", "Ends"]

Ends = Callable[[Collection[TopicPartition]], Awaitable[Mapping[TopicPartition, int] | None]]
"""The offsets at which partitions end, whoever reads them; None where the broker does not answer."""

_LONGEST_S: Final = 3.0
"""Age of an answer after which it proves nothing: `CopyEnds.look` is called each second."""
_SOON_S: Final = 1.0
"""Time after which a topic looks silent, unless sources are idle before."""


@dataclass(slots=True)
class CopyEnds:
    """What answered fetches prove of the partitions that a role reads, those of copies included. Times are monotonic.

    ``originals`` names the partitions of the original of each topic of copies; ``at_end`` says what is proven of each
    partition by itself; ``domains`` are those of the worker. Sources are idle after ``idle_s``.
    """

    originals: Mapping[str, Sequence[TopicPartition]]
    at_end: Callable[[TopicPartition], AtEnd | None]
    ends: Ends
    domains: Callable[[], Mapping[int, Domain]]
    idle_s: float
    monotonic: Callable[[], float] = time.monotonic
    _proven_s: dict[TopicPartition, float] = field(default_factory=dict)
    """By place of copies: when the broker was last asked where the original ends, and copies of all that had come."""

    def of(self, place: TopicPartition) -> AtEnd | None:
        """The span in which a partition was at its end, and nothing was to be copied to it; None where none lasts."""
        end = self.at_end(place)
        if end is None or place.topic not in self.originals:
            return end
        proven_s = self._proven_s.get(place)
        if proven_s is None or end.until_s - proven_s > _LONGEST_S:
            return None
        return replace(end, until_s=min(end.until_s, proven_s))

    async def look(self) -> None:
        """Called about once a second: ask where originals end, if copies of them look silent."""
        places = [place for place in self._places() if self._looks_silent(place)]
        if not places:
            return
        sent_s = self.monotonic()
        ends = await self.ends({each for place in places for each in self.originals[place.topic]})
        if ends is None:
            return
        domains = self.domains()
        for place in places:
            domain = domains.get(place.partition)
            if domain is None:
                continue
            if all(
                ends[each] <= domain.copied_through(place.topic, each.partition) for each in self.originals[place.topic]
            ):
                self._proven_s[place] = sent_s
            else:
                self._proven_s.pop(place, None)

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in self.domains() for topic in self.originals]

    def _looks_silent(self, place: TopicPartition) -> bool:
        end = self.at_end(place)
        if end is None:
            return False
        return place in self._proven_s or end.until_s - end.since_s >= min(_SOON_S, self.idle_s / 2)
