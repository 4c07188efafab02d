"""Recording topics into a log, each message unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from astrocyte.pipeline.kafka.client import admin_client, consumer_client, scan, select_topics, topic_partitions
from astrocyte.pipeline.kafka.offsets import EARLIEST, Start
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter, check_absent
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import MULTI_EVENTS

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient

__all__ = ["Recorded", "record", "topic_settings", "until_set", "write_batches"]

T = TypeVar("T")
_KEPT: Final = {"cleanup.policy": "delete", "max.message.bytes": "1048588"}
"""Settings of topics that a log stores, with Kafka's defaults, which are not stored."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Result of a recording: total messages and bytes (of keys and values), and messages by topic and partition."""

    path: str
    records: int
    bytes: int
    topics: Mapping[str, Mapping[int, int]]


async def record(
    broker: str,
    topics: Sequence[str],
    path: str | Path,
    *,
    start: Start = EARLIEST,
    until_ms: int | None = None,
    count: int | None = None,
    follow: bool = False,
    stop: asyncio.Event | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Recorded:
    """Record the topics into ``path`` up to their current end; with ``follow``, until ``stop`` is set.

    The file gets its name when recording ends, also by an error. ``progress`` is called with the number of messages
    written and their approximate total (None if unknown). Raises BrokerUnavailable, UnknownTopic, InvalidLog.
    """
    check_absent(path, overwrite=overwrite)
    known = await topic_partitions(broker)
    chosen = {topic: known[topic] for topic in select_topics(topics, known)}
    header = LogHeader(
        chosen, _now_iso(), f"kafka://{broker}", await topic_settings(broker, chosen), known.get(MULTI_EVENTS)
    )
    async with consumer_client(broker) as client:
        total = None if follow or count is not None else await _messages(client, chosen)
        batches = scan(client, chosen, start=start, until_ms=until_ms, follow=follow)
        if stop is not None:
            batches = until_set(batches, stop)
        with LogWriter(path, header, overwrite=overwrite) as writer:
            try:
                await write_batches(batches, writer, count, progress and (lambda done: progress(done, total)))
            except Exception:
                # The messages before the failure are complete, so the file gets its name all the same.
                if writer.records:
                    writer.close()
                raise
        messages = {topic: totals.messages for topic, totals in writer.topics.items()}
        size = sum(totals.bytes for totals in writer.topics.values())
        return Recorded(str(path), writer.records, size, messages)


async def write_batches(
    batches: AsyncIterator[list[ConsumedRecord]],
    writer: LogWriter,
    count: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the messages until ``count`` or the end; about once a second they are flushed to disk, readable."""
    flushed = time.monotonic()
    if count == 0:
        return
    async for records in batches:
        for item in records:
            writer.write(item)
            if writer.records == count:
                return
        if progress is not None:
            progress(writer.records)
        if time.monotonic() - flushed > 1:
            writer.flush()
            flushed = time.monotonic()


async def until_set(batches: AsyncIterator[T], stop: asyncio.Event) -> AsyncIterator[T]:
    """The items of ``batches`` until ``stop`` is set, which cancels a pending wait."""
    waiter = asyncio.ensure_future(stop.wait())
    try:
        while not waiter.done():
            step = asyncio.ensure_future(anext(batches))
            await asyncio.wait({step, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                step.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await step
                return
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        waiter.cancel()


async def topic_settings(broker: str, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """Settings of the topics that a replay needs, where they differ from the default and the broker reports them."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
    from aiokafka.errors import KafkaError

    async with admin_client(broker) as client:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(_KEPT)) for topic in topics]
        try:
            return await _described(client, resources)
        except (KafkaError, OSError, ValueError):
            return {}  # a broker that does not describe topics; a replay creates them with its defaults


async def _described(client: AIOKafkaAdminClient, resources: Sequence[object]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for response in await client.describe_configs(resources):
        for code, _, _, name, entries in response.resources:
            kept = {
                entry[0]: entry[1] for entry in entries if entry[0] in _KEPT and entry[1] not in (None, _KEPT[entry[0]])
            }
            if code == 0 and kept:
                found[name] = kept
    return found


async def _messages(client: AIOKafkaConsumer, topics: Mapping[str, int]) -> int:
    from aiokafka import TopicPartition

    places = [TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]
    first, last = await client.beginning_offsets(places), await client.end_offsets(places)
    return sum(last[place] - first[place] for place in places)


def _now_iso() -> str:
    return iso_from_us(time.time_ns() // 1_000_000 * 1000)
