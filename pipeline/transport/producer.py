"""Producing with confirmation: what is handed over is delivered in order and resolved only by the broker's word.

aiokafka's idempotent producer retries lost connections without duplicates, but three things end it: a refused batch
leaves a hole in its sequence numbers after which every later batch is refused, a batch without a leader expires, and
it cannot be started while the broker is away. Here such a producer is replaced by a new one, and everything that is
not confirmed is sent again in its order; deterministic event ids make the rare repetition harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

import pyarrow as pa
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownError,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from astrocyte.pipeline.kafka.closing import discard
from astrocyte.pipeline.transport.client_log import StateLog, limit_client_log
from astrocyte.pipeline.transport.producer_record import (
    PERMANENT,
    TOO_LARGE,
    DeliveryFailed,
    ProducerRecord,
)
from astrocyte.schemas.partitioning import partitions_of

__all__ = ["ConfirmedProducer"]

_SILENT_S: Final = 3.0
_REFUSALS: Final = 3
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_WRONG_CLOCK: Final = "it refuses records with the time of this machine, whose clock may be wrong"


class _Entry:
    __slots__ = ("alone", "builder", "future", "partition", "refusals", "rows", "topic")

    def __init__(self, topic: str, partition: int | None, rows: Sequence[ProducerRecord]) -> None:
        self.topic = topic
        self.partition = partition
        self.rows = rows
        self.alone = False
        self.refusals = 0
        self.builder: BatchBuilder | None = None
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_looked_at)


def _looked_at(future: asyncio.Future[Any]) -> None:
    # A caller that was cancelled leaves its future behind; the failure was logged, not lost.
    if not future.cancelled():
        future.exception()


class ConfirmedProducer:
    """A producer that survives its broker. Belongs to one event loop.

    ``settings`` are those of AIOKafkaProducer; ``should_stop`` ends the endless retries; ``state`` reports that the
    broker is unavailable.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        should_stop: Callable[[], bool] = lambda: False,
        state: StateLog | None = None,
    ) -> None:
        limit_client_log()
        self._settings = dict(settings)
        self._should_stop = should_stop
        self._outbox: dict[int, _Entry] = {}
        self._numbers = count()
        self._turn = count()
        self._ready = asyncio.Event()
        self._closing = False
        self._repairing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None
        self._clock_refused = False
        """Whether the broker refused records because of this machine's time, and has confirmed none since."""
        self._moved_at = time.monotonic()
        self._state = state or StateLog("producer", str(self._settings["bootstrap_servers"]))
        self.current: AIOKafkaProducer | None = None
        """The aiokafka producer in use, None while there is none."""

    @property
    def unconfirmed(self) -> int:
        """Number of records handed over and not confirmed."""
        return sum(len(entry.rows) for entry in self._outbox.values())

    @property
    def delay(self) -> str:
        """Why the broker confirms nothing of what is handed over; empty if it does."""
        silent_s = time.monotonic() - self._moved_at
        if self._outbox and silent_s > _SILENT_S:
            return f"nothing was confirmed for {silent_s:.0f} s; {self.unconfirmed} records wait"
        return "" if self._ready.is_set() else "there is no connection"

    async def start(self) -> None:
        """Return when connected, which may take as long as the broker is unavailable, or when asked to stop."""
        self.current = await self._connect()
        self._watching = asyncio.create_task(self._watch())
        if self.current is not None:
            self._ready.set()

    async def send(self, record: ProducerRecord) -> asyncio.Future[Any]:
        """Hand over one record; the future resolves to its metadata once the broker confirmed it.

        Blocks while the partition's batch is full. The future raises DeliveryFailed.
        """
        entry = _Entry(record.topic, record.partition, [record])
        await self._enqueue(entry)
        return entry.future

    async def send_batch(
        self, topic: str, partition: int, records: Iterable[ProducerRecord]
    ) -> list[asyncio.Future[Any]]:
        """Hand over records of one partition as whole batches, some 20 times faster than one by one.

        Returns one future per batch, in order.
        """
        futures = []
        async for entry in self._packed(topic, partition, list(records)):
            await self._enqueue(entry)
            futures.append(entry.future)
        return futures

    async def deliver(self, records: Iterable[ProducerRecord]) -> None:
        """Return when the broker has confirmed every record; the order within each partition is kept.

        Retries for ever where that may help. Raises DeliveryFailed for a record that is refused for good; others of
        the call may have been delivered then.
        """
        futures: list[asyncio.Future[Any]] = []
        for (topic, partition), rows in (await self._by_partition(list(records))).items():
            futures += await self.send_batch(topic, partition, rows)
        if futures:
            await asyncio.wait(futures)
            for future in futures:
                future.result()

    async def flush(self) -> None:
        """Return when all that was handed over so far is confirmed or refused."""
        waiting = [entry.future for entry in self._outbox.values()]
        if waiting:
            await asyncio.wait(waiting)

    async def stop(self, timeout_s: float = 10.0) -> int:
        """Flush and close; returns the number of records that the broker did not confirm in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), timeout_s)
        self._closing = True
        self._ready.set()  # those who wait to send learn that there is nothing to wait for
        for task in (self._watching, self._repairing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await discard(self.current)
        self.current = None
        left = self.unconfirmed
        for entry in self._outbox.values():
            if not entry.future.done():
                entry.future.set_exception(DeliveryFailed("the producer was closed before the broker confirmed"))
        self._outbox.clear()
        return left

    async def _packed(self, topic: str, partition: int, rows: Sequence[ProducerRecord]) -> AsyncIterator[_Entry]:
        """Cut rows into entries that fill a batch each."""
        done = 0
        now_ms = time.time_ns() // 1_000_000
        while done < len(rows):
            producer = await self._usable()
            builder = producer.create_batch()
            first = done
            while done < len(rows) and _appended(builder, rows[done], now_ms):
                done += 1
            entry = _Entry(topic, partition, rows[first:done])
            if done - first > 1:
                entry.builder = builder
            yield entry

    async def _usable(self) -> AIOKafkaProducer:
        while True:
            await self._ready.wait()
            if self._closing:
                raise DeliveryFailed("the producer was closed")
            if self.current is not None:
                return self.current
            await asyncio.sleep(_BACKOFF_S[0])

    async def _by_partition(self, records: list[ProducerRecord]) -> dict[tuple[str, int], list[ProducerRecord]]:
        parts: dict[tuple[str, int], list[ProducerRecord]] = {}
        by_topic: dict[str, list[ProducerRecord]] = {}
        for record in records:
            if record.partition is not None:
                parts.setdefault((record.topic, record.partition), []).append(record)
            else:
                by_topic.setdefault(record.topic, []).append(record)
        for topic, rows in by_topic.items():
            partitions = await self._partitions(topic)
            keyless = next(self._turn) % partitions
            chosen = partitions_of(pa.array([row.key or b"" for row in rows], pa.binary()), partitions).tolist()
            for row, partition in zip(rows, chosen, strict=True):
                parts.setdefault((topic, keyless if row.key is None else partition), []).append(row)
        return parts

    async def _partitions(self, topic: str) -> int:
        while True:
            producer = await self._usable()
            try:
                return len(await producer.partitions_for(topic))
            except TopicAuthorizationFailedError as error:
                raise DeliveryFailed(f"the broker refuses topic {topic!r}: {error}") from error
            except KafkaError as error:
                self._state.away(f"the partitions of {topic!r} are not known ({type(error).__name__})")
                await asyncio.sleep(_BACKOFF_S[-1])

    async def _enqueue(self, entry: _Entry) -> None:
        await self._usable()
        if not self._outbox:
            self._moved_at = time.monotonic()
        number = next(self._numbers)
        self._outbox[number] = entry
        await self._hand_over(number, entry)

    async def _hand_over(self, number: int, entry: _Entry) -> None:
        for attempt in count():
            producer = self.current
            if producer is None:
                return
            try:
                inner = await self._add(producer, entry)
            except PERMANENT as error:
                self._refuse(number, entry, error)
            except (KafkaTimeoutError, UnknownTopicOrPartitionError) as error:
                # Nothing was added, so the same producer may be asked again: a new one would lose its place in the
                # sequence, and with it the broker's knowledge of what has arrived already.
                if isinstance(error, UnknownTopicOrPartitionError):
                    self._state.away(f"it does not know topic {entry.topic!r}")
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                continue
            except KafkaError as error:
                self._break(producer, error)
            else:
                inner.add_done_callback(partial(self._settle, number, entry, producer))
            return

    async def _add(self, producer: AIOKafkaProducer, entry: _Entry) -> asyncio.Future[Any]:
        first = entry.rows[0]
        if len(entry.rows) == 1:
            return await producer.send(  # type: ignore[no-any-return]
                entry.topic,
                first.value,
                key=first.key if first.key is not None or first.value is not None else b"",
                partition=entry.partition,
                timestamp_ms=first.timestamp_ms,
                headers=list(first.headers),
            )
        await producer.partitions_for(entry.topic)
        builder, entry.builder = entry.builder, None
        if builder is None:  # sent before, by a producer that is gone
            builder = producer.create_batch()
            now_ms = time.time_ns() // 1_000_000
            if not all(_appended(builder, row, now_ms) for row in entry.rows):
                raise ValueError(f"{len(entry.rows)} records do not fit a batch of {self._settings['max_batch_size']}")
        builder.close()
        return await producer.send_batch(builder, entry.topic, partition=entry.partition)  # type: ignore[no-any-return]

    def _settle(self, number: int, entry: _Entry, producer: AIOKafkaProducer, inner: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if inner.cancelled() else inner.exception()
        if error is None:
            self._moved_at = time.monotonic()
            self._clock_refused = False
            self._outbox.pop(number, None)
            if not entry.future.done():
                entry.future.set_result(inner.result())
            return
        if isinstance(error, TOO_LARGE) and not entry.alone:
            # The batch was too large; this record need not be.
            entry.alone = True
        elif isinstance(error, InvalidTimestampError) and all(row.timestamp_ms is None for row in entry.rows):
            # Kafka 4 takes no record from more than an hour ahead. The clock will be set, and they are stamped anew.
            self._clock_refused = True
        elif isinstance(error, PERMANENT) or entry.refusals >= _REFUSALS:
            self._refuse(number, entry, error)
        elif isinstance(error, UnknownError):
            # Codes that aiokafka does not know, such as that of a record without key for a compacted topic.
            entry.refusals += 1
        self._break(producer, error)

    def _refuse(self, number: int, entry: _Entry, error: BaseException) -> None:
        self._outbox.pop(number, None)
        size = max(len(row.value or b"") for row in entry.rows)
        hint = "; raise max.message.bytes of the topic or send smaller records" if isinstance(error, TOO_LARGE) else ""
        failure = DeliveryFailed(
            f"the broker refuses {len(entry.rows)} record(s) for {entry.topic}[{entry.partition}], the largest of "
            f"{size} bytes: {type(error).__name__}: {error}{hint}"
        )
        failure.__cause__ = error
        if not entry.future.done():
            entry.future.set_exception(failure)

    def _break(self, producer: AIOKafkaProducer | None, error: BaseException) -> None:
        if self._closing or producer is not self.current:
            return
        self._broken = error
        self._ready.clear()
        if self._repairing is None or self._repairing.done():
            self._repairing = asyncio.create_task(self._repair())

    async def _repair(self) -> None:
        for attempt in count():
            error, self._broken = self._broken, None
            old, self.current = self.current, None
            if self._outbox:
                why = _WRONG_CLOCK if self._clock_refused else f"{type(error).__name__}: {error}"
                self._state.away(f"{why}; {self.unconfirmed} records are sent again")
            await discard(old)
            if attempt or self._clock_refused:
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S)) - 1])
            self.current = await self._connect()
            if self.current is None:
                return
            if await self._send_again():
                self._ready.set()
                return

    async def _send_again(self) -> bool:
        for number, entry in list(self._outbox.items()):
            await self._again(number, entry)
            if self._broken is not None:
                return False
        return True

    async def _again(self, number: int, entry: _Entry) -> None:
        if not entry.alone:
            await self._hand_over(number, entry)
            return
        producer = self.current
        if producer is not None:
            await producer.flush()
        if len(entry.rows) > 1:
            self._split(number, entry)
            self._broken = RecordListTooLargeError()
            return
        await self._hand_over(number, entry)
        if producer is not None:
            await producer.flush()
        await asyncio.sleep(0)

    def _split(self, number: int, entry: _Entry) -> None:
        """Replace a refused batch by single records in its place."""
        singles = [_Entry(entry.topic, entry.partition, [row]) for row in entry.rows]
        items = list(self._outbox.items())
        self._outbox.clear()
        for other_number, other in items:
            if other_number == number:
                for single in singles:
                    single.alone = True
                    self._outbox[next(self._numbers)] = single
            else:
                self._outbox[other_number] = other
        together = asyncio.gather(*(single.future for single in singles))
        together.add_done_callback(partial(_hand_on, entry.future))

    async def _connect(self) -> AIOKafkaProducer | None:
        for attempt in count():
            if self._closing or self._should_stop():
                return None
            producer = AIOKafkaProducer(**self._settings)
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                await discard(producer)
                self._state.away(f"{type(error).__name__}: {error}")
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
            except BaseException:
                await discard(producer)
                raise
            else:
                self._moved_at = time.monotonic()
                if not self._outbox:
                    self._state.back()
                return producer
        return None

    async def _watch(self) -> None:
        """Say once that nothing is being confirmed, and once that it is again."""
        while True:
            await asyncio.sleep(0.5)
            silent = time.monotonic() - self._moved_at
            if self._outbox and silent > _SILENT_S:
                self._state.away(f"nothing was confirmed for {silent:.0f} s; {self.unconfirmed} records wait")
            elif self._ready.is_set() and not self._clock_refused and (not self._outbox or silent < _SILENT_S):
                self._state.back()


def _appended(builder: BatchBuilder, row: ProducerRecord, now_ms: int) -> bool:
    stamp = now_ms if row.timestamp_ms is None else row.timestamp_ms
    return builder.append(key=row.key, value=row.value, timestamp=stamp, headers=list(row.headers)) is not None


def _hand_on(target: asyncio.Future[Any], source: asyncio.Future[Any]) -> None:
    if target.done():
        return
    if source.cancelled():
        target.cancel()
    elif (error := source.exception()) is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result()[0])
