"""Keys that stand in different partitions of the topics that one rule reads: their events never meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from astrocyte.pipeline.topology.plan import KeyGroup
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.json.reader import KafkaRecord

__all__ = ["KeyPlaces"]

_MOST: Final = 100_000
"""Number of messages whose keys are compared."""


class KeyPlaces:
    """Compares the Kafka keys of the topics that rules read together and that are not repartitioned."""

    def __init__(self, groups: Iterable[KeyGroup], partitions: Mapping[str, int], copies: Iterable[str]) -> None:
        """``partitions`` are the counts of the log's topics; ``copies`` are topics that the pipeline writes."""
        self._partitions = partitions
        self._sets: dict[frozenset[str], dict[bytes, tuple[str, int]]] = {}
        own = {topic for topic in partitions if topic not in set(copies)}
        for group in groups:
            for rule in group.ruleset.rules:
                read = frozenset(topic for stream, topic in group.topics.items() if stream in rule.streams) & own
                if len(read) > 1 and max(partitions[topic] for topic in read) > 1:
                    self._sets[read] = {}
        self._left = _MOST if self._sets else 0
        self.apart: dict[tuple[str, str], str] = {}
        """By two topics: a sentence with the first key that is in different partitions of them."""

    def look(self, topic: str, partition: int, records: Sequence[KafkaRecord]) -> None:
        """Note the keys of messages of a topic. Frames have none: their keys are in their rows."""
        if self._left <= 0:
            return
        self._left -= len(records)
        for read, places in self._sets.items():
            if topic not in read:
                continue
            for record in records:
                if record.key is None:
                    continue
                other, number = places.setdefault(record.key, (topic, partition))
                if number != partition and other != topic and (other, topic) not in self.apart:
                    self.apart[other, topic] = (
                        f"key {key_text(record.key)!r} is in partition {number} of {other} and in partition "
                        f"{partition} of {topic} (of {self._partitions[topic]}), so a rule over both never sees its "
                        "events together: their producers partition differently; declare the key of both streams with "
                        "partitioned: false, then they are repartitioned"
                    )
