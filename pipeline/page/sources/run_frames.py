"""Events of some streams of one run: of a recording once, of a broker from where the last look has ended."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.pipeline.analysis.sources import frames_by_run, read_source
from astrocyte.pipeline.kafka.client import consumer_client, record_of, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import mono_topic

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["BrokerFrames", "RecordedFrames", "RunFrames"]

_PARTS: Final = 64
"""Frames that are taken at once."""
_MOST_RECORDS: Final = 2_000
_POLL_S: Final = 1.0


class RunFrames(Protocol):
    """The frames of some streams of one run."""

    @property
    def live(self) -> bool:
        """Whether more may come, so that `portions` does not end by itself."""

    @property
    def notes(self) -> list[str]:
        """What is to be said of the source, a sentence each."""

    def portions(self) -> AsyncGenerator[list[Frame]]:
        """Those that were not given before; an empty list where none came for some time. Raises AstrocyteError."""


class RecordedFrames:
    """Of a log, a file of events or a database, by its path or URL."""

    live = False

    def __init__(self, source: str, run: str, streams: Sequence[str]) -> None:
        self._source = source
        self._streams = streams
        self._run = run
        self.notes: list[str] = []

    async def portions(self) -> AsyncGenerator[list[Frame]]:
        """See `RunFrames`."""
        parts = read_source(self._source, self._streams, notes=self.notes, run=self._run)
        while portion := await asyncio.to_thread(lambda: list(itertools.islice(parts, _PARTS))):
            yield [part.frame for part in portion if part.frame is not None and part.run == self._run]


class BrokerFrames:
    """Of a broker, from ``history_us`` ago on (all that it has without it)."""

    live = True

    def __init__(self, settings: Settings, run: str, streams: Sequence[str], history_us: int | None) -> None:
        self._settings = settings
        self._topics = frozenset(map(mono_topic, streams))
        self._run = run
        self._history_us = history_us
        self._positions: dict[TopicPartition, int] = {}
        self.notes: list[str] = []

    async def portions(self) -> AsyncGenerator[list[Frame]]:
        """See `RunFrames`."""
        from aiokafka import TopicPartition

        async with consumer_client(self._settings.broker) as client:
            while True:
                there = await topic_partitions(self._settings.broker)
                topics = sorted(self._topics & {*there})
                places = [TopicPartition(topic, number) for topic in topics for number in range(there[topic])]
                if places:
                    break
                yield []
                await asyncio.sleep(_POLL_S)
            client.assign(places)
            for place, offset in (await self._begins(client, places)).items():
                client.seek(place, self._positions.get(place, offset))
            while True:
                found = await client.getmany(timeout_ms=int(_POLL_S * 1000), max_records=_MOST_RECORDS)
                frames: list[Frame] = []
                for place, messages in found.items():
                    self._positions[place] = messages[-1].offset + 1
                    frames += await asyncio.to_thread(self._decoded, place, [record_of(each) for each in messages])
                yield frames

    async def _begins(self, client: AIOKafkaConsumer, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        begins: dict[TopicPartition, int] = await client.beginning_offsets(places)
        if self._history_us is not None:
            since_ms = int(time.time() * 1000 - self._history_us / 1000)
            ends = await client.end_offsets(places)
            found = await client.offsets_for_times(dict.fromkeys(places, since_ms))
            begins |= {place: ends[place] if each is None else each.offset for place, each in found.items()}
        return begins

    def _decoded(self, place: TopicPartition, records: list[ConsumedRecord]) -> list[Frame]:
        frames, _ = decode_chunk(place.topic, place.partition, [raw_record(each) for each in records], CATALOG)
        return list(self._of_run(each.frame for each in frames))

    def _of_run(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            yield from (part for name, part in frames_by_run(frame) if name == self._run)
