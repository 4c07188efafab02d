"""A consumer: a program's own functions, called for the events of Kafka topics."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import orjson

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.embed.handlers import Event, Handler, Handlers, is_async, name_of
from astrocyte.pipeline.kafka.client import topic_partitions
from astrocyte.pipeline.kafka.closing import ended
from astrocyte.pipeline.kafka.security import security_arguments
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.transport.client_log import StateLog, limit_client_log
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.contract import Contract, read_event
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent, InvalidSettings
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import is_derived, mono_topic, stream_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["Consumer", "ConsumerCounts", "HandlerFailed"]

H = TypeVar("H", bound=Handler)
T = TypeVar("T")
_POLL_MS: Final = 200
_MOST_RECORDS: Final = 1_000
_RETRY_S: Final = 0.5
_PLACING_S: Final = 0.02
"""Time between two looks whether a group's first positions are set."""
_NEW_TOPICS_S: Final = 2.0
"""Time within which topics that appear are found."""
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]+")
_WILD: Final = frozenset("*?[")
_log = logging.getLogger("astrocyte.handlers")


class HandlerFailed(AstrocyteError):
    """A handler raised, and the consumer was made with ``on_error="stop"``; a group gets the event again."""


@dataclass(frozen=True, slots=True)
class ConsumerCounts:
    """What a consumer has read: ``received`` events are ``handled`` or ``failed``; others were no events."""

    received: int = 0
    handled: int = 0
    failed: int = 0
    """Events for which a handler raised."""
    unreadable: int = 0
    """Messages that hold no event: a worker writes them to the dead letters."""


class Consumer:
    """Calls decorated functions for the events of Kafka topics, in the order of each partition.

    ::

        consumer = Consumer(group="dashboard")

        @consumer.on("dna.*")
        async def show(event): ...

        consumer.run()

    Consumers of one ``group`` share the partitions and continue where the group was; an event is delivered again if the
    process ends before its chunk was committed, so a handler must be safe to repeat. Without a group each consumer gets
    all events. A new group, and a consumer without one, begin at ``start``: the end of each topic, or its beginning.
    Topics that appear later are read from their
    beginning. A handler that raises is logged and counted, or with ``on_error="stop"`` ends the consumer.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        group: str | None = None,
        start: Literal["latest", "earliest"] = "latest",
        on_error: Literal["continue", "stop"] = "continue",
    ) -> None:
        if group is not None and not (isinstance(group, str) and _GROUP.fullmatch(group)):
            raise InvalidSettings(f"group {group!r}; expected letters, digits, '.', '_' and '-'")
        if start not in ("latest", "earliest"):
            raise InvalidSettings(f"start {start!r}; expected latest or earliest")
        if on_error not in ("continue", "stop"):
            raise InvalidSettings(f"on_error {on_error!r}; expected continue or stop")
        self._broker = load_settings(broker=broker).broker
        self._group, self._start, self._on_error = group, start, on_error
        self._handlers = Handlers()
        self._counts: Counter[str] = Counter()
        self._reported: set[str] = set()
        self._stopped = threading.Event()
        self._state = StateLog("consumer", self._broker)
        self._placed = False
        self._starts: dict[TopicPartition, int] = {}
        self._look_again = 0.0
        self.is_ready = threading.Event()
        """Set once the consumer has its first partitions: events emitted from then on are received."""
        self.caught_up = threading.Event()
        """Set once all that its first partitions held when it began is handled."""
        self._ends_at_start: dict[TopicPartition, int] = {}

    def on(self, *patterns: str) -> Callable[[H], H]:
        """Decorator: the function, or coroutine function, handles events of the streams that match.

        A pattern is the name of a stream or a shell pattern, such as ``dna.*``. What the pipeline itself writes is
        named in full: ``alerts``, ``multi.events``, ``late``, or ``metrics.*`` for the results of windows.
        """
        return self._handlers.on(*patterns)

    @property
    def counts(self) -> ConsumerCounts:
        """What was read so far."""
        return ConsumerCounts(**self._counts)

    def run(self) -> ConsumerCounts:
        """Handle events until `stop`, Ctrl-C or SIGTERM; returns the counts. Waits while the broker is unavailable."""
        from astrocyte.pipeline.stopping import ends_on_signal

        if threading.current_thread() is not threading.main_thread():
            asyncio.run(self.serve())
            return self.counts
        with ends_on_signal() as stop:
            stop.finish("astrocyte: stopping the consumer")

            async def serve() -> None:
                serving = asyncio.create_task(self.serve())
                while not serving.done() and not stop.is_set():
                    await asyncio.wait([serving], timeout=_POLL_MS / 1000)
                self.stop()
                await serving

            asyncio.run(serve())
        return self.counts

    def stop(self) -> None:
        """End `run` or `serve` after the events that are being handled; from any thread, or from a handler."""
        self._stopped.set()

    async def serve(self) -> None:
        """`run` in a running event loop; coroutine functions run in it. Ends with `stop` or when it is cancelled."""
        if not self._handlers.patterns:
            raise InvalidSettings('the consumer has no handler; decorate a function with @consumer.on("...")')
        client = await self._connected()
        try:
            while client is not None and not self._stopped.is_set():
                if self._group is None:
                    await self._follow(client)
                elif not self._placed:  # aiokafka would read from the beginning until the positions are set
                    await asyncio.sleep(_PLACING_S)
                    continue
                await self._commit_starts(client)
                batches = await client.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
                for place, messages in batches.items():
                    await self._handle_chunk(client, place, messages)
                if not self.caught_up.is_set() and self.is_ready.is_set():
                    await self._look_caught_up(client)
        finally:
            self._stopped.clear()
            if client is not None:
                await ended(client.stop, 10.0)

    async def _connected(self) -> AIOKafkaConsumer | None:
        from aiokafka import AIOKafkaConsumer
        from aiokafka.errors import KafkaError

        from astrocyte.pipeline.kafka.record_batches import unpack_answers

        limit_client_log()
        while not self._stopped.is_set():
            client = AIOKafkaConsumer(
                bootstrap_servers=self._broker,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                metadata_max_age_ms=round(_NEW_TOPICS_S * 1000),
                fetch_max_wait_ms=_POLL_MS,
                max_partition_fetch_bytes=4 << 20,
                isolation_level="read_committed",
                **security_arguments(),
            )
            if self._group is not None:
                client.subscribe(pattern=self._topics().pattern, listener=self._listener(client))
            try:
                await client.start()
            except (KafkaError, OSError) as error:
                await ended(client.stop)
                self._state.away(f"{type(error).__name__}: {error}")
                await asyncio.sleep(_RETRY_S)
            else:
                unpack_answers(client)
                self._state.back()
                return client
        return None

    async def _follow(self, client: AIOKafkaConsumer) -> None:
        """Without a group: assign the partitions of matching topics, now and when further ones appear."""
        from aiokafka import TopicPartition

        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + _NEW_TOPICS_S
        wanted = self._topics()
        try:
            counts = await topic_partitions(self._broker)
        except AstrocyteError as error:
            self._state.away(str(error).split(";", maxsplit=1)[0])
            return
        self._state.back()
        there = {TopicPartition(topic, n) for topic in counts if wanted.match(topic) for n in range(counts[topic])}
        before = client.assignment()
        if new := there - before:
            positions = {place: await client.position(place) for place in before}
            client.assign(sorted(there | before))
            for place, position in positions.items():
                client.seek(place, position)
            await self._place(client, sorted(new))
        elif not self._placed:
            await self._place(client, [])

    def _topics(self) -> re.Pattern[str]:
        """Topics of the patterns: those of streams, and what the pipeline writes where a pattern names it."""
        parts = []
        for pattern in self._handlers.patterns:
            parts.append(fnmatch.translate(mono_topic(pattern)))
            parts.append(fnmatch.translate(pattern))
        return re.compile("|".join(f"(?:{part})" for part in dict.fromkeys(parts)))

    def _stream(self, topic: str) -> str | None:
        """Name by which handlers of a topic are found; None for a topic that is not read."""
        if not is_derived(topic):
            return stream_of(topic) or topic
        named = any(fnmatch.fnmatchcase(topic, each) and each[0] not in _WILD for each in self._handlers.patterns)
        return topic if named else None

    def _listener(self, client: AIOKafkaConsumer) -> Any:
        from aiokafka import ConsumerRebalanceListener

        consumer = self

        class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
            """Sets the position in topics that were there at the start; topics that appear are read from 0."""

            async def on_partitions_revoked(self, revoked: Any) -> None:
                del revoked

            async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
                await consumer._place(client, assigned)

        return Listener()

    async def _place(self, client: AIOKafkaConsumer, assigned: Sequence[TopicPartition]) -> None:
        """Set the positions of partitions that are new here: only those of the first assignment begin at the end."""
        if not self._placed and self._start == "latest":
            ends = await self._answer(lambda: self._ends(client, assigned))
            for place, end in ends.items():
                client.seek(place, end)
            if self._group is not None:
                self._starts |= ends
                await self._report_skipped(client, ends)
        elif self._group is None:
            for place, begin in (await self._answer(lambda: client.beginning_offsets(assigned))).items():
                client.seek(place, begin)
        if not self._placed:
            self._ends_at_start = dict(await self._answer(lambda: client.end_offsets(assigned))) if assigned else {}
        self._placed = True
        self.is_ready.set()

    async def _look_caught_up(self, client: AIOKafkaConsumer) -> None:
        """Set `caught_up` if nothing is left of what was there. Partitions that moved away are another's to read."""
        held = client.assignment()
        for place, end in list(self._ends_at_start.items()):
            if place not in held or await client.position(place) >= end:
                del self._ends_at_start[place]
        if not self._ends_at_start:
            self.caught_up.set()

    async def _ends(self, client: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The ends of the partitions in which the group has committed nothing."""
        fresh = [place for place in places if self._group is None or await client.committed(place) is None]
        return dict(await client.end_offsets(fresh)) if fresh else {}

    async def _report_skipped(self, client: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        """Say that a new group handles nothing of what is there already."""
        begins = await self._answer(lambda: client.beginning_offsets(list(ends))) if ends else {}
        skipped = {place: end - begins[place] for place, end in ends.items() if end > begins[place]}
        if skipped:
            _log.warning(
                "group %s is new and begins at the end of its topics: %s earlier messages of %s are not handled; "
                'Consumer(..., start="earliest") begins with them',
                self._group, f"{sum(skipped.values()):,}", ", ".join(sorted({place.topic for place in skipped})[:5]),
            )  # fmt: skip

    async def _answer(self, question: Callable[[], Awaitable[T]]) -> T:
        """The broker's answer, asked for again until it comes: without it reading would begin elsewhere.

        Raises KafkaError or OSError once the consumer is stopped.
        """
        from aiokafka.errors import KafkaError

        while True:
            try:
                answer = await question()
            except (KafkaError, OSError) as error:
                if self._stopped.is_set():
                    raise
                self._state.away(f"{type(error).__name__}: {error}")
                await asyncio.sleep(_RETRY_S)
            else:
                self._state.back()
                return answer

    async def _commit_starts(self, client: AIOKafkaConsumer) -> None:
        """Commit where a new group begins, so that a rebalance before its first event does not begin elsewhere."""
        starts, self._starts = self._starts, {}
        for place in starts.keys() & client.assignment():
            await self._commit(client, place, starts[place])

    async def _commit(self, client: AIOKafkaConsumer, place: TopicPartition, offset: int) -> None:
        from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

        try:
            await client.commit({place: offset})
        except (CommitFailedError, IllegalStateError):
            _log.warning("%s[%d] moved to another consumer, which handles its last events again", *place)
        except KafkaError as error:
            _log.warning("%s[%d] could not be committed: %s", *place, error)

    async def _handle_chunk(self, client: AIOKafkaConsumer, place: TopicPartition, messages: Sequence[Any]) -> None:
        name = self._stream(place.topic)
        handlers = () if name is None else self._handlers.of(name)
        if handlers:
            events = self._events(name or place.topic, place, messages)
            awaited = [is_async(handler) for handler in handlers]
            if any(awaited):
                for event in events:
                    await self._call(event, handlers, awaited)
            else:  # off the loop, so that a slow function does not delay the heartbeats to the broker
                await asyncio.to_thread(self._call_all, events, handlers)
        if self._group is not None:
            await self._commit(client, place, messages[-1].offset + 1)

    def _events(self, name: str, place: TopicPartition, messages: Sequence[Any]) -> list[Event]:
        records = [RawRecord(m.offset, m.timestamp, m.key, m.value, m.headers) for m in messages]
        frames, letters = decode_chunk(place.topic, place.partition, records)
        self._counts["unreadable"] += len(letters)
        if letters:
            self._report(f"a message of {place.topic} holds no event: {letters[0].reason}")
        by_offset = {record.offset: record for record in records}
        return [event for frame in frames for event in _events_of(name, frame, by_offset)]

    def _call_all(self, events: Sequence[Event], handlers: Sequence[Handler]) -> None:
        for event in events:
            failed = False
            for handler in handlers:
                try:
                    handler(event)
                except Exception as error:  # noqa: BLE001  reported and counted, whatever it is
                    failed = True
                    self._failed(handler, event, error)
            self._count(failed)

    async def _call(self, event: Event, handlers: Sequence[Handler], awaited: Sequence[bool]) -> None:
        failed = False
        for handler, is_awaited in zip(handlers, awaited, strict=True):
            try:
                if is_awaited:
                    await handler(event)
                else:
                    await asyncio.to_thread(handler, event)
            except Exception as error:  # noqa: BLE001  reported and counted, whatever it is
                failed = True
                self._failed(handler, event, error)
        self._count(failed)

    def _count(self, failed: bool) -> None:
        self._counts["received"] += 1
        self._counts["failed" if failed else "handled"] += 1

    def _failed(self, handler: Handler, event: Event, error: Exception) -> None:
        what = f"the handler {name_of(handler)} raised {type(error).__name__}"
        if self._on_error == "stop":
            self._count(failed=True)
            again = "it is delivered again" if self._group is not None else "without a group it is not delivered again"
            raise HandlerFailed(
                f"{what}: {error} for {event.topic}[{event.partition}]@{event.offset}; {again}"
            ) from error
        self._report(what, error)

    def _report(self, what: str, error: Exception | None = None) -> None:
        if what not in self._reported and len(self._reported) < 100:
            self._reported.add(what)
            _log.warning("%s; further ones are counted in consumer.counts", what, exc_info=error)


def _events_of(name: str, sourced: SourcedFrame, records: Mapping[int, RawRecord]) -> list[Event]:
    frame = sourced.frame
    event_type = CATALOG.find(name)
    parsed = [] if event_type is None else [each for each, kind in event_type.fields.items() if kind == "json"]
    offsets = [sourced.offset] * frame.num_rows if sourced.offsets is None else sourced.offsets.tolist()
    made = []
    for row, event_id, offset in zip(frame.event_fields(), frame.id_strings(), offsets, strict=True):
        moment, key, kind = row.pop("timestamp"), row.pop("key"), row.pop("type")
        for each in parsed:
            row[each] = _parsed(row.get(each))
        if event_type is None and sourced.offsets is not None:
            _restore_nested(row, name, records[offset])
        made.append(Event(event_id, name, kind, key, moment, row, sourced.topic, sourced.partition, offset))
    return made


def _parsed(value: Any) -> Any:
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(value) if isinstance(value, str) else value
    return value


def _restore_nested(row: dict[str, Any], name: str, record: RawRecord) -> None:
    """Give lists and objects of a JSON record back their form: columns hold them as JSON text."""
    held = [each for each, value in row.items() if isinstance(value, str) and value[:1] in ("[", "{")]
    if not held:
        return
    with contextlib.suppress(orjson.JSONDecodeError, InvalidEvent):  # messages of other decoders stay as they are
        body = orjson.loads(record.value or b"")
        if isinstance(body, Mapping):
            fields = read_event(body, Contract(name)).fields
            row |= {each: fields[each] for each in held if isinstance(fields.get(each), list | dict)}
