"""The newest messages of one topic, of a broker or of a recorded log as of an instant."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from astrocyte.pipeline.kafka.client import consumer_client, record_of, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import read_log

__all__ = ["Newest", "newest_of_broker", "newest_of_log"]

_LIMIT_S: Final = 20.0
_LOOKBACKS_MS: Final = (5_000, 60_000, 900_000)
"""Parts of a log before the instant that are read, one after the other, while they hold too few messages."""
_SLACK_MS: Final = 2_000
"""Messages of several partitions are in order of time but for about this much."""


@dataclass(frozen=True, slots=True)
class Newest:
    """At most ``most`` messages of a topic: the newest ones before a Kafka time in milliseconds, or of all."""

    topic: str
    most: int
    until_ms: int | None = None
    after: Mapping[int, int] = field(default_factory=dict)
    """Offsets by partition that were given before: of a broker only later messages are wanted."""


async def newest_of_broker(broker: str, wanted: Newest) -> list[ConsumedRecord]:
    """The messages by time, those of each partition in its order. Raises BrokerUnavailable."""
    from aiokafka import TopicPartition

    count = (await topic_partitions(broker)).get(wanted.topic, 0)
    places = [TopicPartition(wanted.topic, number) for number in range(count)]
    found: list[ConsumedRecord] = []
    if not places:
        return found
    async with consumer_client(broker) as client:
        client.assign(places)
        begins, ends = await client.beginning_offsets(places), await client.end_offsets(places)
        if wanted.until_ms is not None:
            at = await client.offsets_for_times(dict.fromkeys(places, wanted.until_ms))
            ends = {place: ends[place] if at[place] is None else at[place].offset for place in places}
        share = -(-wanted.most // len(places))
        for place in places:
            client.seek(place, max(begins[place], ends[place] - share, wanted.after.get(place.partition, -1) + 1))
        began_s = time.monotonic()
        left = {place for place in places if await client.position(place) < ends[place]}
        client.pause(*(place for place in places if place not in left))
        while left and time.monotonic() - began_s < _LIMIT_S:
            for place, messages in (await client.getmany(*left, timeout_ms=500)).items():
                found += [record_of(each) for each in messages if each.offset < ends[place]]
            left = {place for place in left if await client.position(place) < ends[place]}
    return sorted(found, key=lambda record: record.timestamp_ms)[-wanted.most :]


def newest_of_log(path: Path, wanted: Newest) -> list[ConsumedRecord]:
    """The messages in the order of the log."""
    index = read_index(path)
    totals = None if index is None else index.topics.get(wanted.topic)
    if index is not None and totals is None:
        return []
    end_ms = wanted.until_ms
    if end_ms is None and totals is not None:
        end_ms = totals.last_ms + 1
    lookbacks = () if index is None or end_ms is None else _LOOKBACKS_MS
    for lookback_ms in (*lookbacks, None):
        start_ms = None if lookback_ms is None or end_ms is None else end_ms - lookback_ms
        found = _between(path, wanted, start_ms, end_ms)
        if len(found) == wanted.most or start_ms is None:
            return list(found)
    return []


def _between(path: Path, wanted: Newest, start_ms: int | None, end_ms: int | None) -> deque[ConsumedRecord]:
    found: deque[ConsumedRecord] = deque(maxlen=wanted.most)
    for record in read_log(path, start_ms=start_ms, on_torn=lambda _error: None):
        if end_ms is not None and record.timestamp_ms >= end_ms + _SLACK_MS:
            break
        if record.topic == wanted.topic and (end_ms is None or record.timestamp_ms < end_ms):
            found.append(record)
    return found
