"""A bounded sample of the messages of topics, of a recorded log, or of a file of events.

Reading joins no group, commits nothing and makes no topic.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal

from astrocyte.pipeline.kafka.client import consumer_client, record_of, select_topics, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord, is_frame
from astrocyte.pipeline.recording.event_files import EventFiles, form_of
from astrocyte.pipeline.recording.format import LogHeader, TornLog
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import GZIP, ZSTD, open_log
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import decode_frame
from astrocyte.schemas.topics import LATE, MULTI_EVENTS, TopicPartition, is_derived

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka import TopicPartition as Place

__all__ = [
    "Sample",
    "free_name",
    "read_file",
    "read_log_sample",
    "read_topics",
    "standard_input",
    "stream_name",
]

_PROBE: Final = 5
"""Newest messages of a partition that are read first, to learn how large they are."""
_BYTES: Final = 256 << 20
"""Largest sample in bytes."""
_MOST_STREAMS: Final = 14
"""A member ``stream`` with more values than this is a field, not the name of the event's stream."""


@dataclass(slots=True)
class Sample:
    """Messages of one or several topics. Within a partition they are in order and without gaps."""

    name: str
    """Name of the topic, path of the file."""
    form: Literal["topic", "log", "json", "csv", "parquet"]
    records: dict[TopicPartition, list[ConsumedRecord]] = field(default_factory=dict)
    held: dict[TopicPartition, int] = field(default_factory=dict)
    """Number of messages that each partition holds, where that is known."""
    partitions: dict[str, int] = field(default_factory=dict)
    """Partition count of each topic."""
    complete: bool = True
    """Whether the sample is everything."""
    cut: bool = False
    """Whether reading ended because it took too long, so that the newest messages may be missing."""
    doubts: list[str] = field(default_factory=list)
    """What is strange about the names of columns of a file."""
    domains: int | None = None
    """Partitions of the topics that workers have written there; None if there are none."""
    known: tuple[str, ...] = ()
    """All topics of the broker or the log, also those of which there is no sample."""
    broker: str | None = None

    @property
    def topics(self) -> list[str]:
        """The topics of the sample, sorted."""
        return sorted({place.topic for place in self.records})

    @property
    def is_file(self) -> bool:
        """Whether it is a file of events, whose rows are JSON records."""
        return self.form in ("json", "csv", "parquet")

    def of(self, topic: str) -> dict[int, list[ConsumedRecord]]:
        """Messages of a topic by partition."""
        found = {place.partition: records for place, records in self.records.items() if place.topic == topic}
        return dict(sorted(found.items()))

    def held_by(self, topic: str) -> int | None:
        """Number of messages that a topic holds; None where it is not known."""
        counts = [count for place, count in self.held.items() if place.topic == topic]
        return sum(counts) if counts else None

    def merged(self) -> Iterator[ConsumedRecord]:
        """All messages by Kafka's time, each partition in its own order, as a recorded log holds them."""
        items = []
        for number, records in enumerate(self.records.values()):
            newest = -1
            for record in records:
                newest = max(newest, record.timestamp_ms)
                items.append((newest, number, record.offset, record))
        yield from (item[3] for item in sorted(items, key=lambda item: item[:3]))


def _events_of(record: ConsumedRecord) -> int:
    """Number of events of a message; 1 for one that is not readable."""
    if not is_frame(record):
        return 1
    try:
        return max(1, decode_frame(record.value or b"").num_rows)
    except AstrocyteError:
        return 1


# -- topics ----------------------------------------------------------------------------------------------------------


def read_topics(broker: str, patterns: Sequence[str], *, limit: int, limit_s: float) -> Sample:
    """The newest messages of topics, about ``limit`` events of each; reading ends after ``limit_s`` seconds.

    Raises UnknownTopic, BrokerUnavailable.
    """
    return asyncio.run(_read_topics(broker, patterns, limit=limit, limit_s=limit_s))


async def _read_topics(broker: str, patterns: Sequence[str], *, limit: int, limit_s: float) -> Sample:
    from aiokafka import TopicPartition as Place

    counts = await topic_partitions(broker)
    topics = select_topics(patterns, counts)
    if len(topics) > 1:
        topics = [topic for topic in topics if not is_derived(topic)] or topics
    sample = Sample(", ".join(patterns), "topic", known=tuple(counts), broker=broker)
    sample.partitions = {topic: counts[topic] for topic in topics}
    sample.domains = next((counts[topic] for topic in (MULTI_EVENTS, LATE) if topic in counts), None)
    places = [Place(topic, number) for topic in topics for number in range(counts[topic])]
    deadline = time.monotonic() + limit_s
    async with consumer_client(broker) as client:
        client.assign(places)
        begins, ends = await client.beginning_offsets(places), await client.end_offsets(places)
        held = {place: ends[place] - begins[place] for place in places}
        sample.held = {TopicPartition(*place): count for place, count in held.items()}
        for topic in topics:
            sample.records[TopicPartition(topic, 0)] = []
        few = {place: min(_PROBE, held[place]) for place in places}
        probe = await _fetch(client, _tails(ends, few), ends, deadline)
        wanted: dict[Place, int] = {}
        for topic in topics:
            own = {place: held[place] for place in places if place.topic == topic}
            wanted |= _shares(own, _messages(probe, own, limit, len(topics)))
        found = {place: probe[place][-wanted[place] :] if wanted[place] else [] for place in places}
        if any(wanted[place] > len(probe[place]) for place in places):
            found = await _fetch(client, _tails(ends, wanted), ends, deadline)
            sample.cut = time.monotonic() >= deadline
    for place, records in found.items():
        if records:
            sample.records[TopicPartition(*place)] = records
    sample.complete = all(len(found[place]) >= held[place] for place in places)
    return sample


def _messages(probe: Mapping[Place, list[ConsumedRecord]], own: Iterable[Place], limit: int, topics: int) -> int:
    """How many messages of a topic hold ``limit`` events, and are not too large."""
    records = [record for place in own for record in probe[place]]
    if not records:
        return limit
    events = sum(map(_events_of, records)) / len(records)
    size = sum(len(record.value or b"") for record in records) / len(records)
    return max(1, min(round(limit / events), round(_BYTES / topics / max(size, 1))))


def _shares(held: Mapping[Place, int], total: int) -> dict[Place, int]:
    """``total`` divided over the partitions; what one does not have is taken from the others."""
    shares: dict[Place, int] = {}
    for left, (place, count) in zip(
        range(len(held), 0, -1), sorted(held.items(), key=lambda item: item[1]), strict=True
    ):
        shares[place] = min(count, -(-total // left))
        total = max(0, total - shares[place])
    return shares


def _tails(ends: Mapping[Place, int], counts: Mapping[Place, int]) -> dict[Place, int]:
    return {place: ends[place] - count for place, count in counts.items()}


async def _fetch(
    client: AIOKafkaConsumer, starts: Mapping[Place, int], ends: Mapping[Place, int], deadline: float
) -> dict[Place, list[ConsumedRecord]]:
    """Messages of the partitions from their starts to their ends, or up to the deadline."""
    found: dict[Place, list[ConsumedRecord]] = {place: [] for place in ends}
    waiting = {place for place in starts if starts[place] < ends[place]}
    client.resume(*client.assignment())
    client.pause(*(place for place in ends if place not in waiting))
    for place in waiting:
        client.seek(place, starts[place])
    while waiting and time.monotonic() < deadline:
        for place, messages in (await client.getmany(*waiting, timeout_ms=200)).items():
            found[place] += [record_of(message) for message in messages if message.offset < ends[place]]
        # A position beyond the last message: the rest was compacted, or is a transaction marker.
        reached = {place for place in waiting if await client.position(place) >= ends[place]}
        client.pause(*reached)
        waiting -= reached
    return found


# -- logs and files --------------------------------------------------------------------------------------------------


def read_log_sample(path: str, *, limit: int) -> Sample:
    """The first ``limit`` events of a recorded log, or of the output of kcat -J. Raises InvalidLog."""
    sample = Sample(path, "log")
    index = None if path == "-" else read_index(path)
    if index is not None:
        for topic, totals in index.topics.items():
            if not is_derived(topic):
                sample.held |= {TopicPartition(topic, number): count for number, count in totals.messages.items()}
    left = limit
    known: set[str] = set() if index is None else set(index.topics)
    try:
        for item in open_log(path):
            if isinstance(item, LogHeader):
                sample.partitions |= dict(item.partitions)
                continue
            known.add(item.topic)
            if is_derived(item.topic):
                continue
            if left <= 0:
                sample.complete = False
                break
            left -= _events_of(item)
            sample.records.setdefault(TopicPartition(item.topic, item.partition), []).append(item)
    except TornLog:
        pass  # everything before the tear was read
    for place in sample.records:
        sample.partitions[place.topic] = max(sample.partitions.get(place.topic, 0), place.partition + 1)
    sample.partitions = {topic: sample.partitions[topic] for topic in sample.topics}
    sample.known = tuple(sorted(known))
    return sample


def read_file(path: str, contracts: Contracts, *, limit: int, stream: str | None, named: str) -> Sample:
    """The first ``limit`` rows of a file of events, as messages that hold JSON records.

    They belong to ``stream``; without it to the streams that they name themselves, else to the stream ``named``. Raises
    InvalidLog, InvalidSettings.
    """
    form = form_of(path)
    assert form != "log"
    streams = [named] if stream is None and not _names_streams(path, named) else []
    files = EventFiles([path], contracts, streams, stream)
    sample = Sample(path, form)
    sample.doubts = files.doubts()
    rows = files.records()
    for record in islice(rows, limit):
        sample.records.setdefault(TopicPartition(record.topic, 0), []).append(record)
    sample.complete = next(rows, None) is None
    sample.partitions = dict.fromkeys(sample.topics, 1)
    sample.known = tuple(sample.topics)
    return sample


def _names_streams(path: str, named: str) -> bool:
    """Whether the events of a file name their streams."""
    files = EventFiles([path], Contracts(), [named, ""])
    topics = set()
    try:
        for record in islice(files.records(), 1000):
            topics.add(record.topic)
    except AstrocyteError:
        return False
    return 0 < len(topics) <= _MOST_STREAMS


def stream_name(text: str) -> str:
    """The text as the name of a stream, in letters that rules can use."""
    plain = re.sub(r"\W+", "_", text).strip("_")
    return f"s_{plain}" if plain[:1].isdigit() else plain or "events"


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with the first number from 2 on behind it that makes it differ from those that are taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


@contextmanager
def standard_input(limit: int) -> Iterator[str]:
    """Path of a file with what standard input holds, up to ``limit`` lines where it is text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        with path.open("wb") as file:
            _copy(sys.stdin.buffer, file, limit)
        yield str(path)


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> None:
    first = source.readline()
    target.write(first)
    if b"\0" in first or first.startswith((GZIP, ZSTD)):
        shutil.copyfileobj(source, target)
        return
    for line in islice(source, limit):  # one more than is read, so that it is seen that there is more
        target.write(line)
