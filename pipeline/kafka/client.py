"""Kafka clients: listing and creating topics, and reading them from a start to an end.

Reading here is for tools (tap, record, explain): no consumer group, no commits. Workers read through Faust.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import heapq
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from astrocyte.pipeline.kafka.closing import discard, ended
from astrocyte.pipeline.kafka.offsets import EARLIEST, Start
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.kafka.security import security_arguments, security_names
from astrocyte.pipeline.kafka.topic_names import did_you_mean_topic, listed_topics
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings, TransientError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

__all__ = [
    "BrokerUnavailable",
    "UnknownTopic",
    "admin_client",
    "consumer_client",
    "ensure_topics",
    "partition_counts",
    "producer_client",
    "read_at",
    "record_of",
    "scan",
    "select_topics",
    "topic_partitions",
    "until_available",
]

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_STALL_S: Final = 15.0
_LARGEST: Final = 256 << 20


class BrokerUnavailable(TransientError):
    """No Kafka broker answers at the address."""


class UnknownTopic(InvalidSettings):
    """A topic that the broker does not have."""


@contextlib.contextmanager
def _limited_log() -> Iterator[None]:
    # aiokafka logs a traceback for an address that does not answer; the caller gets one error message instead.
    theirs = logging.getLogger("aiokafka")
    before = theirs.level
    theirs.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        theirs.setLevel(before)


@contextlib.contextmanager
def _translated(broker: str) -> Iterator[None]:
    """Translate aiokafka's errors: retriable ones to BrokerUnavailable, others to AstrocyteError."""
    from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

    try:
        yield
    except KafkaError as error:
        # The bare class says that no broker has answered a request for metadata.
        silent = type(error) is KafkaError or isinstance(error, KafkaConnectionError | KafkaTimeoutError)
        if error.retriable or silent:
            raise BrokerUnavailable(
                f"the broker at {broker} became unavailable ({type(error).__name__}); check that it is running"
            ) from error
        raise AstrocyteError(
            f"the broker at {broker} rejected the request: {type(error).__name__} {error}".rstrip()
        ) from error


async def _started(client: Any, broker: str) -> None:
    from aiokafka.errors import KafkaError

    try:
        with _limited_log():
            await asyncio.wait_for(client.start(), _TIMEOUT_S)
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        with contextlib.suppress(Exception):
            await ended(getattr(client, "stop", None) or client.close)
        raise BrokerUnavailable(
            f"no Kafka broker answers at {broker} ({type(error).__name__}); start one with 'astrocyte broker --data "
            f"DIR', or name another with -b or ASTROCYTE_BROKER{_or_refused()}"
        ) from None


def _or_refused() -> str:
    """Aiokafka has one error for a broker that is away and for one that refuses certificate or login."""
    how = security_names()
    return how and f". If it runs, it may not take {how} with these settings ASTROCYTE_KAFKA_*: see its log"


async def until_available(step: Callable[[], Awaitable[Any]]) -> Any:
    """Result of ``step``, retried while the broker is unavailable, which is logged once."""
    reported = False
    while True:
        try:
            return await step()
        except BrokerUnavailable as error:
            if not reported:
                logger.warning("waiting for the broker: %s", error)
                reported = True
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def admin_client(broker: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client. Raises BrokerUnavailable."""
    from aiokafka.admin import AIOKafkaAdminClient

    client = AIOKafkaAdminClient(bootstrap_servers=broker, **security_arguments())
    await _started(client, broker)
    try:
        with _translated(broker):
            yield client
    finally:
        await ended(client.close)


@contextlib.asynccontextmanager
async def consumer_client(broker: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A connected consumer without a group and without assigned partitions. Raises BrokerUnavailable.

    ``options`` are those of aiokafka's consumer.
    """
    from aiokafka import AIOKafkaConsumer

    from astrocyte.pipeline.kafka.record_batches import unpack_answers

    settings: dict[str, Any] = {
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "fetch_max_bytes": 64 << 20,
        "max_partition_fetch_bytes": 4 << 20,
        "fetch_max_wait_ms": 200,
        "isolation_level": "read_committed",  # as workers read: events of an aborted transaction are none
    }
    client = AIOKafkaConsumer(bootstrap_servers=broker, **(settings | security_arguments() | options))
    await _started(client, broker)
    unpack_answers(client)
    try:
        with _translated(broker):
            yield client
    finally:
        await ended(client.stop)


@contextlib.asynccontextmanager
async def producer_client(broker: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A connected, idempotent producer that waits for all replicas and allows large messages.

    It is flushed at the end of the context, and closed at once where an error ends it. Raises BrokerUnavailable.
    """
    from aiokafka import AIOKafkaProducer

    settings: dict[str, Any] = {
        "enable_idempotence": True,
        "max_request_size": _LARGEST,
        "max_batch_size": 1 << 20,
        "linger_ms": 5,
    }
    client = AIOKafkaProducer(bootstrap_servers=broker, **(settings | security_arguments() | options))
    await _started(client, broker)
    try:
        with _translated(broker):
            yield client
    except BaseException:
        # An idempotent producer retries for ever, so stopping it would wait for an unavailable broker.
        await discard(client)
        raise
    try:
        await asyncio.wait_for(client.stop(), _TIMEOUT_S)
    except TimeoutError:
        await discard(client)


async def topic_partitions(broker: str) -> dict[str, int]:
    """Partition count of every topic of the broker that is not internal, sorted by name. Raises BrokerUnavailable."""
    async with admin_client(broker) as client:
        counts = await partition_counts(client)
    return {name: counts[name] for name in sorted(counts) if not name.startswith("__")}


def select_topics(patterns: Iterable[str], known: Iterable[str]) -> list[str]:
    """Topics that match ``patterns``: names, or shell patterns such as ``mono.*``. Raises UnknownTopic."""
    known = list(known)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in known if name == pattern] or fnmatch.filter(known, pattern)
        if not found:
            raise UnknownTopic(
                f"no topic {pattern!r}; the broker has {listed_topics(known)}{did_you_mean_topic(pattern, known)}"
                if known else
                f"no topic {pattern!r}; the broker has no topics yet"
            )  # fmt: skip
        chosen.update(dict.fromkeys(found))
    return list(chosen)


async def ensure_topics(
    broker: str,
    partitions: Mapping[str, int],
    *,
    replication: int = 1,
    config: Mapping[str, Mapping[str, str]] | None = None,
    check: Callable[[Mapping[str, int]], None] | None = None,
) -> dict[str, int]:
    """Create the missing topics; returns the actual partition count of each.

    ``check`` is called with the counts of those that exist; if it raises, nothing has been created.
    """
    from aiokafka.admin import NewTopic

    async with admin_client(broker) as client:
        there = await partition_counts(client)
        if check is not None:
            check({name: there[name] for name in partitions if name in there})
        absent = [name for name in partitions if name not in there]
        if absent:
            response = await client.create_topics(
                [
                    NewTopic(name, partitions[name], replication, topic_configs=dict((config or {}).get(name, {})))
                    for name in absent
                ]
            )
            for name, code, *message in response.topic_errors:
                if code not in (0, 36):  # 36: another client created it meanwhile
                    raise AstrocyteError(_creation_error(name, code, message))
            there = await _awaited(client, absent)
        return {name: there[name] for name in partitions}


def _creation_error(name: str, code: int, message: Sequence[Any]) -> str:
    from aiokafka.errors import for_code

    reason = next((text for text in message if text), None) or for_code(code).__name__
    return f"topic {name!r} cannot be created: {reason}"


async def _awaited(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, int]:
    for _ in range(100):
        there = await partition_counts(client)
        if all(there.get(name) for name in names):
            return there
        await asyncio.sleep(0.1)
    raise AstrocyteError(
        f"topics {', '.join(names)} were created, but the broker does not list them after 10 s; check the broker's log"
    )


async def partition_counts(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Partition count of every topic of the broker, internal ones included."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}


async def scan(
    client: AIOKafkaConsumer,
    topics: Mapping[str, int],
    *,
    start: Start = EARLIEST,
    until_ms: int | None = None,
    follow: bool = False,
    partitions: Iterable[int] | None = None,
) -> AsyncIterator[list[ConsumedRecord]]:
    """Messages of topics (with their partition counts) in lists, from ``start`` to their current end.

    Up to that end, messages are merged by timestamp over all partitions (each partition in its own order). With
    ``follow`` later messages are yielded as they arrive, and an empty list for each second in which none arrived.
    ``until_ms`` ends each partition before its first message of that time or later. Raises BrokerUnavailable.
    """
    places = _places(topics, partitions)
    client.assign(places)
    begins = await _begins(client, places, start)
    ends = await client.end_offsets(places) if places else {}
    if until_ms is not None and places:
        found = await client.offsets_for_times(dict.fromkeys(places, until_ms))
        ends = {place: ends[place] if found[place] is None else found[place].offset for place in places}
        stopped = {place for place in places if found[place] is not None}
    else:
        stopped = set()
    for place in places:
        client.seek(place, begins[place])
    async for records in _until_end(client, begins, ends):
        yield records
    if not follow:
        return
    open_places = [place for place in places if place not in stopped]
    client.resume(*open_places)
    for place in open_places:
        client.seek(place, max(begins[place], ends[place]))
    while open_places:
        batches = await client.getmany(*open_places, timeout_ms=1000)
        if until_ms is not None and not batches and time.time() * 1000 > until_ms + 1000:
            return
        records = []
        for place, messages in batches.items():
            for message in messages:
                if until_ms is not None and message.timestamp >= until_ms:
                    open_places.remove(place)
                    break
                records.append(record_of(message))
        yield records


async def read_at(client: AIOKafkaConsumer, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
    """The message at one offset, or None where the topic does not (or no longer) hold it."""
    from aiokafka import TopicPartition

    place = TopicPartition(topic, partition)
    try:
        client.assign([place])
        first, last = await client.beginning_offsets([place]), await client.end_offsets([place])
    except ValueError:
        return None
    if not first[place] <= offset < last[place]:
        return None
    client.seek(place, offset)
    while await client.position(place) <= offset:
        for message in (await client.getmany(place, timeout_ms=500, max_records=1)).get(place, ()):
            return record_of(message) if message.offset == offset else None
    return None


async def _until_end(
    client: AIOKafkaConsumer, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncIterator[list[ConsumedRecord]]:
    waiting: dict[TopicPartition, deque[ConsumedRecord]] = {
        place: deque() for place in begins if begins[place] < ends[place]
    }
    client.pause(*(place for place in begins if place not in waiting))
    floors = dict.fromkeys(waiting, -1)
    finished: set[TopicPartition] = set()
    idle_since = time.monotonic()
    while waiting:
        empty = [place for place, records in waiting.items() if not records]
        batches = await client.getmany(*empty, timeout_ms=500)
        for place, messages in batches.items():
            waiting[place].extend(record_of(message) for message in messages if message.offset < ends[place])
        for place in empty:
            # A position beyond the last message: the rest was compacted, or is a transaction marker.
            if place not in batches and await client.position(place) < ends[place]:
                continue
            if await client.position(place) >= ends[place]:
                finished.add(place)
                client.pause(place)  # else the broker would hold fetches open to wait for its next message
        if batches:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > _STALL_S:
            await _check_alive(client, list(waiting))
            idle_since = time.monotonic()
        yield _merged(waiting, floors, finished)
        for place in [place for place, records in waiting.items() if not records and place in finished]:
            del waiting[place]


def _merged(
    waiting: Mapping[TopicPartition, deque[ConsumedRecord]],
    floors: dict[TopicPartition, int],
    finished: set[TopicPartition],
) -> list[ConsumedRecord]:
    """Take records in timestamp order, until a partition that is not finished has none left."""
    if any(not records and place not in finished for place, records in waiting.items()):
        return []
    heap = []
    for number, (place, records) in enumerate(waiting.items()):
        if records:
            floors[place] = max(floors[place], records[0].timestamp_ms)
            heap.append((floors[place], number, place))
    heapq.heapify(heap)
    merged = []
    while heap:
        _, number, place = heapq.heappop(heap)
        records = waiting[place]
        merged.append(records.popleft())
        if records:
            floors[place] = max(floors[place], records[0].timestamp_ms)
            heapq.heappush(heap, (floors[place], number, place))
        elif place not in finished:
            break
    return merged


def _places(topics: Mapping[str, int], partitions: Iterable[int] | None) -> list[TopicPartition]:
    from aiokafka import TopicPartition

    wanted = None if partitions is None else set(partitions)
    places = [
        TopicPartition(topic, number)
        for topic, count in topics.items()
        for number in range(count)
        if wanted is None or number in wanted
    ]
    if topics and not places:
        there = ", ".join(f"{topic} has 0 to {count - 1}" for topic, count in topics.items())
        raise UnknownTopic(f"no partition {', '.join(map(str, sorted(wanted or ())))}: {there}; choose one of these")
    return places


async def _begins(
    client: AIOKafkaConsumer, places: Sequence[TopicPartition], start: Start
) -> dict[TopicPartition, int]:
    first = await client.beginning_offsets(places)
    last = await client.end_offsets(places)
    match start.kind:
        case "earliest":
            return dict(first)
        case "latest":
            return dict(last)
        case "offset":
            return {place: max(first[place], start.value) for place in places}
        case "tail":
            return {place: max(first[place], last[place] - start.value) for place in places}
    found = await client.offsets_for_times(dict.fromkeys(places, max(start.value, 0)))
    return {place: last[place] if found[place] is None else found[place].offset for place in places}


async def _check_alive(client: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
    from aiokafka.errors import KafkaError

    try:
        with _limited_log():
            await asyncio.wait_for(client.end_offsets(places), _TIMEOUT_S)
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(
            f"the broker became unavailable while it was read ({type(error).__name__}); run the command again"
        ) from None


def record_of(message: Any) -> ConsumedRecord:
    """A message of aiokafka as the record that it is."""
    return ConsumedRecord(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.value,
        tuple(message.headers),
        "logappend" if message.timestamp_type == 1 else "create" if message.timestamp_type == 0 else "unknown",
    )
