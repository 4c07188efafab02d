"""Replaying recorded logs into Kafka with their original spacing, or as fast as the broker accepts them."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from astrocyte.pipeline.kafka.client import (
    BrokerUnavailable,
    consumer_client,
    ensure_topics,
    producer_client,
    read_at,
    topic_partitions,
)
from astrocyte.pipeline.kafka.offsets import parse_span_us, parse_time_us
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader, TornLog
from astrocyte.pipeline.recording.index import Totals, read_index
from astrocyte.pipeline.recording.reader import open_log, read_header, read_log
from astrocyte.pipeline.recording.replays.laps import Laps, whole_seconds
from astrocyte.pipeline.recording.replays.pacing import Tempo
from astrocyte.pipeline.recording.replays.shift import (
    Shift,
    first_event_us,
    rename_stream,
    repartition,
    shift_record,
    whole_us,
)
from astrocyte.schemas.contract import Contract, Contracts
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.times import us_from_ms
from astrocyte.schemas.topics import is_derived, stream_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

__all__ = [
    "Plan",
    "Replayed",
    "Selection",
    "make_plan",
    "newer_events",
    "parse_remap",
    "parse_within_log",
    "replay",
    "shift_by",
    "shift_to_now",
]

_DAY_MS: Final = 86_400_000
_LAST: Final = 8
"""How many of the last messages of a partition are read to find an event: the very last may only end a run."""
_DEFAULT_LIMIT: Final = 900_000
"""Bytes of a message that every broker accepts by default."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of a log are replayed, and into which topics. Times are Kafka's, in milliseconds."""

    start_ms: int | None = None
    until_ms: int | None = None
    topics: tuple[str, ...] = ()
    """Names or shell patterns; empty: all."""
    exclude: tuple[str, ...] = ()
    remap: Mapping[str, str] = field(default_factory=dict)

    def takes(self, topic: str) -> bool:
        """Whether messages of the topic are replayed."""
        named = not self.topics or any(fnmatch.fnmatchcase(topic, pattern) for pattern in self.topics)
        return named and not any(fnmatch.fnmatchcase(topic, pattern) for pattern in self.exclude)


@dataclass(slots=True)
class Plan:
    """Plan of a replay: for each topic the recorded partitions, the messages, and their bytes."""

    selection: Selection
    paths: tuple[str, ...]
    partitions: dict[str, int] = field(default_factory=dict)
    """Recorded partition count by recorded topic; without a header, the highest partition seen plus one."""
    topics: dict[str, Totals] = field(default_factory=dict)
    """Replayed messages of each recorded topic."""
    config: dict[str, dict[str, str]] = field(default_factory=dict)
    contracts: Contracts = field(default_factory=Contracts)
    """Where the events of a stream have their time."""

    @property
    def total(self) -> int:
        """Messages to replay."""
        return sum(totals.count for totals in self.topics.values())

    @property
    def first_ms(self) -> int | None:
        """Kafka's time of the first message, None where no message has one."""
        return min((totals.first_ms for totals in self.topics.values() if totals.first_ms >= 0), default=None)

    @property
    def last_ms(self) -> int | None:
        """Kafka's time of the last message."""
        return max((totals.last_ms for totals in self.topics.values() if totals.last_ms >= 0), default=None)

    @property
    def span_s(self) -> float:
        """Seconds from the first message to the last."""
        return 0.0 if self.first_ms is None or self.last_ms is None else (self.last_ms - self.first_ms) / 1000

    def target(self, topic: str) -> str:
        """Topic into which messages of ``topic`` are sent."""
        return self.selection.remap.get(topic, topic)

    def contract(self, topic: str) -> Contract:
        """The contract of the messages of ``topic``: that of the topic into which they are sent, if it is declared."""
        target = self.contracts.of_topic(self.target(topic))
        return target if target.declaration is not None else self.contracts.of_topic(topic)

    def target_partitions(self) -> dict[str, int]:
        """Partition count with which each missing target topic is created."""
        counts: dict[str, int] = {}
        for topic in self.topics:
            counts[self.target(topic)] = max(self.partitions[topic], counts.get(self.target(topic), 0))
        return counts

    def target_config(self, now_ms: int) -> dict[str, dict[str, str]]:
        """Settings with which each missing target topic is created."""
        config = {self.target(topic): dict(entries) for topic, entries in self.config.items()}
        largest = max((totals.largest for totals in self.topics.values()), default=0)
        if largest > _DEFAULT_LIMIT:
            for topic in self.target_partitions():
                config.setdefault(topic, {}).setdefault("max.message.bytes", str(2 * largest))
        if self.first_ms is not None and self.first_ms < now_ms - _DAY_MS:
            # Replayed messages keep their timestamps: a broker's retention by age would delete old ones at once.
            for topic in self.target_partitions():
                config.setdefault(topic, {})["retention.ms"] = "-1"
        return config


@dataclass(slots=True)
class Replayed:
    """Messages that were delivered and confirmed by the broker."""

    messages: int = 0
    bytes: int = 0
    laps: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def parse_remap(options: Sequence[str]) -> dict[str, str]:
    """Mapping of ``OLD:=NEW`` options. Raises InvalidSettings."""
    mapping = {}
    for option in options:
        old, found, new = option.partition(":=")
        if not found or not old or not new:
            raise InvalidSettings(f"--remap: expected OLD:=NEW, such as mono.axon_1:=mono.axon_9, got {option!r}")
        mapping[old] = new
    return mapping


def parse_within_log(text: str, first_ms: int, *, now_us: int) -> int:
    """Milliseconds of a position in a log: a duration from its first message, or a time. Raises InvalidSettings."""
    try:
        return first_ms + parse_span_us(text) // 1000
    except InvalidSettings:
        return parse_time_us(text, now_us=now_us) // 1000


def make_plan(paths: Sequence[str | Path], selection: Selection, contracts: Contracts | None = None) -> Plan:
    """Plan of a replay, from one pass over the logs or their indexes. Raises InvalidLog, InvalidSettings."""
    plan = Plan(selection, tuple(str(path) for path in paths), contracts=contracts or Contracts())
    for path in plan.paths:
        if path == "-":
            raise InvalidSettings("replay reads a log twice, so it cannot read standard input; give a file")
        index = None if selection.start_ms is not None or selection.until_ms is not None else read_index(path)
        if index is not None:
            _plan_header(plan, read_header(path))
            for topic, totals in index.topics.items():
                _plan_topic(plan, topic, max(totals.messages))
                if selection.takes(topic):
                    plan.topics[topic] = totals if topic not in plan.topics else plan.topics[topic].joined(totals)
            continue
        for item in _whole_part(path):
            if isinstance(item, LogHeader):
                _plan_header(plan, item)
                continue
            _plan_topic(plan, item.topic, item.partition)
            if _selected(item, selection):
                plan.topics.setdefault(item.topic, Totals()).add(item)
    unknown = [name for name in selection.remap if name not in plan.partitions]
    if unknown and plan.partitions:
        raise InvalidSettings(
            f"--remap names topic {unknown[0]!r}, which the log does not hold; "
            f"it has {', '.join(sorted(plan.partitions))}"
        )
    return plan


def _whole_part(path: str) -> Iterator[ConsumedRecord | LogHeader]:
    """Headers and records of a log; of a torn one its complete records (`read_log` reports the tear later)."""
    with contextlib.suppress(TornLog):
        yield from open_log(path)


def _selected(record: ConsumedRecord, selection: Selection) -> bool:
    return (
        selection.takes(record.topic)
        and (selection.start_ms is None or record.timestamp_ms >= selection.start_ms)
        and (selection.until_ms is None or record.timestamp_ms < selection.until_ms)
    )


def _plan_header(plan: Plan, header: LogHeader | None) -> None:
    if header is not None:
        for topic, count in header.partitions.items():
            _plan_topic(plan, topic, count - 1)
        for topic, entries in header.config.items():
            plan.config[topic] = dict(entries)


def _plan_topic(plan: Plan, topic: str, partition: int) -> None:
    plan.partitions[topic] = max(plan.partitions.get(topic, 0), partition + 1)


def _messages(plan: Plan) -> Iterator[tuple[int, ConsumedRecord]]:
    """(due time in microseconds of the log, message) of all files merged; due times never decrease."""

    def of_file(path: str) -> Iterator[tuple[int, ConsumedRecord]]:
        due_ms = -1
        for record in read_log(path, start_ms=plan.selection.start_ms):
            if _selected(record, plan.selection):
                if us_from_ms(record.timestamp_ms) is not None:  # one in another unit would stop the replay for ever
                    due_ms = max(due_ms, record.timestamp_ms)
                yield due_ms, record

    files = [of_file(path) for path in plan.paths]
    for due_ms, record in heapq.merge(*files, key=lambda item: item[0]):
        yield due_ms * 1000, record


async def replay(
    plan: Plan,
    broker: str,
    *,
    tempo: Tempo,
    shift: Shift | None = None,
    loop: bool = False,
    replication: int = 1,
    timeout_s: float = 15.0,
    stop: asyncio.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replayed:
    """Send the plan's messages to ``broker`` at the tempo's rate, each delivery confirmed; returns the totals.

    A message keeps its partition where the topic has as many as were recorded; else frames are divided and other
    messages placed by Kafka's hash of the key. Missing topics are created. ``loop`` repeats until ``stop`` is set:
    every further lap continues at the time at which the one before it ended, with events of other ids. It is due when
    the one before it is over by Kafka's times, also where its event times span more. A broker that is unavailable for
    ``timeout_s`` ends the replay. ``progress`` is called with the number of messages sent and the current time of the
    log in milliseconds. Raises BrokerUnavailable, InvalidLog.
    """
    if not plan.total:
        raise InvalidLog(f"{', '.join(plan.paths)}: no message to replay; check --topics, --start and --duration")
    counts = await ensure_topics(
        broker,
        plan.target_partitions(),
        replication=replication,
        config=plan.target_config(time.time_ns() // 1_000_000),
    )
    done = Replayed()
    began = time.monotonic()
    async with producer_client(broker, request_timeout_ms=round(timeout_s * 1000)) as producer:
        sender = _Sender(producer, done, broker, timeout_s)
        laps = Laps(whole_seconds(round(plan.span_s * 1e6) + 1))
        while True:
            done.laps += 1
            lap_us = laps.kafka_us * (done.laps - 1)
            lap_shift = laps.shift(shift, done.laps)
            for due_us, record in _messages(plan):
                if loop and done.laps == 1:
                    laps.see(record, plan.contract(record.topic))
                due_us += lap_us
                if stop is not None and stop.is_set():
                    break
                if not tempo.ready(due_us):
                    await sender.flush()
                    await _due(tempo, due_us, stop)
                    if stop is not None and stop.is_set():
                        break
                await _send(sender, plan, counts, record, lap_shift)
                if progress is not None:
                    progress(sender.sent, due_us // 1000)
            await sender.flush()
            if not loop or (stop is not None and stop.is_set()):
                break
    done.seconds = time.monotonic() - began
    return done


async def _due(tempo: Tempo, due_us: int, stop: asyncio.Event | None) -> None:
    if stop is None:
        await tempo.until(due_us)
        return
    waiters = [asyncio.ensure_future(tempo.until(due_us)), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiter


async def _send(
    sender: _Sender, plan: Plan, counts: Mapping[str, int], record: ConsumedRecord, shift: Shift | None
) -> None:
    if shift is not None:
        record = shift_record(record, shift, plan.contract(record.topic))
    target = plan.target(record.topic)
    count = counts[target]
    stream = stream_of(target)
    if target != record.topic and stream is not None and stream_of(record.topic) not in (None, stream):
        record = rename_stream(record, stream)
    recorded = plan.partitions[record.topic]
    parts = [record] if count == recorded else repartition(record, recorded, count)
    for part in parts:
        await sender.send(target, part)


class _Sender:
    """Fills one batch per partition and awaits its delivery: aiokafka's `send` costs more than the whole rest."""

    def __init__(self, producer: AIOKafkaProducer, done: Replayed, broker: str, timeout_s: float) -> None:
        self._producer = producer
        self._done = done
        self._broker = broker
        self._timeout_s = timeout_s
        self._builders: dict[tuple[str, int], tuple[BatchBuilder, int]] = {}
        self._deliveries: dict[asyncio.Future[Any], tuple[str, int, int]] = {}
        self.sent = 0

    async def send(self, topic: str, record: ConsumedRecord) -> None:
        """Append the message to its partition's batch; a full batch is sent first."""
        place = (topic, record.partition)
        size = len(record.value or b"") + len(record.key or b"")
        while True:
            entry = self._builders.get(place)
            builder, held = entry if entry is not None else (self._producer.create_batch(), 0)
            taken = builder.append(
                timestamp=record.timestamp_ms if record.timestamp_ms >= 0 else None,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
            )
            if taken is not None:
                self._builders[place] = (builder, held + size)
                self.sent += 1
                return
            await self._dispatch(place)

    async def flush(self) -> None:
        """Send all open batches and await every delivery."""
        for place in list(self._builders):
            await self._dispatch(place)
        while self._deliveries:
            # An idempotent producer itself would retry for ever.
            finished, _ = await asyncio.wait(
                self._deliveries, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not finished:
                raise self._unavailable(f"nothing was confirmed for {self._timeout_s:g} s")
            self._collect()

    async def _dispatch(self, place: tuple[str, int]) -> None:
        from aiokafka.errors import KafkaError

        builder, held = self._builders.pop(place)
        try:
            future = await self._producer.send_batch(builder, place[0], partition=place[1])
        except KafkaError as error:
            raise self._failure(place[0], error) from None
        self._deliveries[future] = (place[0], builder.record_count(), held)
        self._collect()

    def _collect(self) -> None:
        for future in [future for future in self._deliveries if future.done()]:
            topic, messages, held = self._deliveries.pop(future)
            error = future.exception()
            if error is not None:
                raise self._failure(topic, error) from None
            self._done.messages += messages
            self._done.bytes += held
            self._done.topics[topic] = self._done.topics.get(topic, 0) + messages

    def _unavailable(self, reason: str) -> BrokerUnavailable:
        for future in self._deliveries:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        delivered = f"{self._done.messages} messages were delivered before"
        return BrokerUnavailable(f"the broker at {self._broker} became unavailable ({reason}); {delivered}")

    def _failure(self, topic: str, error: BaseException) -> AstrocyteError:
        from aiokafka.errors import (
            KafkaConnectionError,
            KafkaTimeoutError,
            MessageSizeTooLargeError,
            RequestTimedOutError,
        )

        delivered = f"{self._done.messages} messages were delivered before"
        if isinstance(error, KafkaConnectionError | KafkaTimeoutError | RequestTimedOutError):
            return self._unavailable(type(error).__name__)
        if isinstance(error, MessageSizeTooLargeError):
            return AstrocyteError(
                f"a message for topic {topic!r} is larger than the broker accepts; raise its max.message.bytes "
                f"({delivered})"
            )
        return AstrocyteError(f"the broker rejected messages of topic {topic!r}: {error!r} ({delivered})")


async def newer_events(plan: Plan, broker: str, shift: Shift | None = None) -> tuple[int, int] | None:
    """First event time of the replay, and the newest in its topics on the broker if that is greater; else None.

    Workers that have read the newer events count the older ones as late, unless their producers have ended.
    Microseconds. Raises BrokerUnavailable.
    """
    from aiokafka import TopicPartition

    first_us = _first_event_us(plan)
    there = await topic_partitions(broker)
    targets = {plan.target(topic) for topic in plan.topics if not is_derived(topic)} & there.keys()
    if first_us is None or not targets:
        return None
    newest_us = -1
    async with consumer_client(broker) as consumer:
        places = [TopicPartition(topic, number) for topic in sorted(targets) for number in range(there[topic])]
        for place, end in (await consumer.end_offsets(places)).items():
            for offset in range(end - 1, max(end - 1 - _LAST, -1), -1):
                record = await read_at(consumer, place.topic, place.partition, offset)
                time_us = None if record is None else first_event_us(record, plan.contracts.of_topic(place.topic))
                if time_us is not None:
                    newest_us = max(newest_us, time_us)
                    break
    first_us += 0 if shift is None else shift.event_us
    return (first_us, newest_us) if newest_us > first_us else None


def _first_event_us(plan: Plan) -> int | None:
    return next(
        (
            time
            for _, record in _messages(plan)
            if (time := first_event_us(record, plan.contract(record.topic))) is not None
        ),
        None,
    )


def shift_to_now(plan: Plan, *, now_us: int) -> Shift:
    """The shift by which the plan's first message happens now, and its first event less than a second later.

    Events move by whole seconds, so that whole numbers of any unit stay whole.
    """
    first_us = _first_event_us(plan)
    event_us = 0 if first_us is None else whole_seconds(now_us - first_us)
    kafka_ms = 0 if plan.first_ms is None else now_us // 1000 - plan.first_ms
    return Shift(event_us, kafka_ms)


def shift_by(plan: Plan, event_us: int) -> Shift:
    """The shift by a span. Raises InvalidSettings where it would make a fraction of a whole number of seconds or ms."""
    if event_us % 1_000_000:
        for _, record in _messages(plan):
            step_us = whole_us(record, plan.contract(record.topic))
            if event_us % step_us:
                unit = "seconds" if step_us == 1_000_000 else "milliseconds"
                raise InvalidSettings(
                    f"a shift by {event_us / 1e6:g} s would make fractions of event times of topic {record.topic!r}, "
                    f"which are whole {unit}; give a span of whole {unit}"
                )
    return Shift(event_us, event_us // 1000)
