"""Publishing frames to Kafka: the sink of a simulation.

The caller's thread splits and encodes; a separate thread sends to the broker. The queue between them is bounded in
bytes, and the caller blocks only while it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections import deque
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

import pyarrow as pa
from aiokafka.errors import KafkaError

from astrocyte.pipeline.kafka.client import BrokerUnavailable, ensure_topics
from astrocyte.pipeline.transport.client_log import StateLog, limit_client_log
from astrocyte.pipeline.transport.producer import ConfirmedProducer
from astrocyte.pipeline.transport.producer_record import ProducerRecord, producer_settings
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import CONTENT_TYPE, Frame, encode_frame
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.partitioning import partitions_of, split_by_partition
from astrocyte.schemas.topics import mono_topic

__all__ = ["Form", "KafkaSink", "PublishFailed", "messages_of"]

Form = Literal["frames", "json"]
T = TypeVar("T")

_FRAME_HEADERS: Final = (("content-type", CONTENT_TYPE.encode()),)
_LARGEST: Final = 900 << 10
"""Maximum size of an encoded frame in bytes; Kafka's default limit of a message is 1 MiB with its envelope."""
_OVERHEAD: Final = 100
_RETRY_S: Final = 0.5
_log = logging.getLogger("astrocyte.pipeline.simulation.publish")


class PublishFailed(AstrocyteError):
    """The broker has refused a message permanently; the sink accepts no more frames."""


class _Parcel(NamedTuple):
    """Messages of one partition, with the number of events and bytes that their confirmation settles."""

    topic: str
    partition: int
    messages: list[ProducerRecord]
    events: int
    size: int


def messages_of(frame: Frame, partitions: int, form: Form = "frames") -> Iterator[ProducerRecord]:
    """The Kafka messages of a frame, in order within each partition; their timestamps are event time.

    As frames: one message for each partition that the frame concerns (see ``split_by_partition``), or several where it
    would exceed Kafka's default limit. As JSON: one message for each row.
    """
    for parcel in _parcels(frame, partitions, form, event_time=True):
        yield from parcel.messages


def _parcels(frame: Frame, partitions: int, form: Form, *, event_time: bool) -> Iterator[_Parcel]:
    topic = mono_topic(frame.stream)
    if form == "json":
        yield from _json_parcels(topic, frame, partitions, event_time=event_time)
        return
    for partition, part in split_by_partition(frame, partitions):
        for piece, payload in _fitting(part):
            times = piece.timestamps()
            time_us = int(times[-1]) if len(times) else piece.watermark_us or 0
            time_ms = max(time_us // 1000, 0) if event_time else None
            message = ProducerRecord(topic, payload, None, partition, _FRAME_HEADERS, time_ms)
            yield _Parcel(topic, partition, [message], piece.num_rows, len(payload) + _OVERHEAD)


def _fitting(frame: Frame) -> Iterator[tuple[Frame, bytes]]:
    payload = encode_frame(frame)
    if len(payload) <= _LARGEST or frame.num_rows < 2:
        yield frame, payload
        return
    middle = frame.num_rows // 2
    # Only the last piece may carry the watermark and the end of the run.
    yield from _fitting(_own_strings(_open_ended(frame.slice(0, middle))))
    yield from _fitting(_own_strings(frame.slice(middle, frame.num_rows)))


def _own_strings(frame: Frame) -> Frame:
    """The frame with only the strings that its rows use: a slice keeps the dictionaries of the whole frame."""
    batch = frame.batch
    for index, column in enumerate(batch.columns):
        if pa.types.is_dictionary(column.type) and len(column.dictionary) > len(column):
            field = batch.schema.field(index)
            batch = batch.set_column(index, field, column.dictionary_decode().dictionary_encode().cast(field.type))
    return replace(frame, batch=batch)


def _open_ended(frame: Frame) -> Frame:
    return replace(frame, watermark_us=None, end=False)


def _json_parcels(topic: str, frame: Frame, partitions: int, *, event_time: bool) -> Iterator[_Parcel]:
    if frame.num_rows == 0:
        return
    keys = frame.column("key")
    of_key = partitions_of(keys.dictionary, partitions).tolist()
    codes = keys.indices.fill_null(-1).to_pylist()
    times = (frame.timestamps() // 1000).clip(0).tolist() if event_time else repeat(None)
    rows: dict[int, list[ProducerRecord]] = {}
    with _uncollected():
        for (key, value, headers), code, time_ms in zip(frame_to_records(frame), codes, times, strict=False):
            partition = of_key[code] if code >= 0 else 0
            rows.setdefault(partition, []).append(ProducerRecord(topic, value, key, partition, headers, time_ms))
    for partition, messages in rows.items():
        size = sum([len(message.value or b"") for message in messages]) + _OVERHEAD * len(messages)
        yield _Parcel(topic, partition, messages, len(messages), size)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    # Each record allocates a dozen small containers, none of them in a cycle; collection would take half of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class KafkaSink:
    """A FrameSink into Kafka: accepted frames are delivered, however often the broker is unavailable.

    The order within a partition is kept. A topic is created with its first frame. ``write`` blocks while more than
    ``pending_bytes`` await confirmation, and with the first frame of a stream until the broker says how many partitions
    the topic has; a program that must not wait uses a `Publisher`. May be used from any number of threads, and as a
    context manager.
    """

    def __init__(
        self,
        broker: str,
        *,
        partitions: int = 4,
        replication: int = 1,
        form: Form = "frames",
        pending_bytes: int = 64 << 20,
        topic_config: dict[str, str] | None = None,
        **producer_options: Any,
    ) -> None:
        limit_client_log()
        self._broker = broker
        self._partitions = partitions
        self._replication = replication
        self._form: Form = form
        self._limit = pending_bytes
        self._topic_config = {"max.message.bytes": str(32 << 20)} | (topic_config or {})
        self._settings = producer_settings(broker, **producer_options)
        self._room = threading.Condition()
        self._pending = 0
        self._failure: BaseException | None = None
        self._closed = False
        self._counts: dict[str, int] = {}
        """Partition counts of the topics that were written."""
        self._queue: deque[_Parcel] = deque()
        self._state = StateLog("publisher", broker)
        self.events_written = 0
        """Events that were accepted."""
        self.events_confirmed = 0
        """Events that the broker has confirmed."""
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._main = self._loop.create_task(self._pump())
        self._thread = threading.Thread(target=self._run, name="kafka-sink", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    @property
    def pending_bytes(self) -> int:
        """Bytes that were accepted and are not confirmed."""
        return self._pending

    def write(self, frame: Frame) -> None:
        """Accept one frame; blocks while the queue is full.

        A topic that exists keeps its partitions. Raises PublishFailed once the broker has refused a message for good.
        """
        self._check()
        topic = mono_topic(frame.stream)
        if topic not in self._counts:
            self._counts[topic] = self._call(self._make(topic))
        # The message timestamp is the time of writing: brokers apply retention by it, and refuse one in the future.
        parcels = list(_parcels(frame, self._counts[topic], self._form, event_time=False))
        size = sum(parcel.size for parcel in parcels)
        with self._room:
            # A frame larger than the limit is accepted when nothing else is pending.
            while self._pending and self._pending + size > self._limit and self._failure is None:
                self._room.wait(0.5)
            self._check()
            self._pending += size
            self.events_written += frame.num_rows
            self._queue.extend(parcels)
        self._loop.call_soon_threadsafe(self._wake.set)

    def flush(self) -> None:
        """Return when everything written is confirmed, however long the broker is unavailable. Raises PublishFailed."""
        with self._room:
            while self._pending and self._failure is None:
                self._room.wait(0.5)
        self._check()

    def close(self) -> None:
        """Flush and disconnect. Raises PublishFailed."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> int:
        """Disconnect at once; returns the number of events that the broker had not confirmed."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join()
        return self.events_written - self.events_confirmed

    def rescue(self) -> str:
        """What became of the events, in words, for a process that ends now."""
        return f"the broker has confirmed {self.events_confirmed:,} of {self.events_written:,} events"

    def _check(self) -> None:
        if self._failure is not None:
            raise PublishFailed(f"publishing stopped: {self._failure}") from self._failure
        if self._closed:
            raise PublishFailed("the sink was closed; create another one")

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _make(self, topic: str) -> int:
        """Create a topic that does not exist; returns its partition count."""
        while not self._closed:
            try:
                found = await ensure_topics(
                    self._broker,
                    {topic: self._partitions},
                    replication=self._replication,
                    config={topic: self._topic_config},
                )
            except (BrokerUnavailable, KafkaError, OSError, TimeoutError) as error:
                self._state.away(f"{type(error).__name__}: {str(error).split(';')[0]}")
                await asyncio.sleep(_RETRY_S)
                continue
            self._state.back()
            return found[topic]
        raise PublishFailed("the sink was closed before the broker answered")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001  raised again by the next write
            _log.exception("the publisher failed")
            self._fail(error)
        finally:
            self._loop.close()

    async def _pump(self) -> None:
        producer = ConfirmedProducer(self._settings, should_stop=lambda: self._closed)
        try:
            await producer.start()
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue and self._failure is None:
                    await self._hand_over(producer, self._queue.popleft())
        finally:
            await producer.stop(0.0)

    async def _hand_over(self, producer: ConfirmedProducer, parcel: _Parcel) -> None:
        if len(parcel.messages) == 1:
            futures = [await producer.send(parcel.messages[0])]
        else:
            futures = await producer.send_batch(parcel.topic, parcel.partition, parcel.messages)
        left = [len(futures)]
        for future in futures:
            future.add_done_callback(partial(self._settled, parcel, left))

    def _settled(self, parcel: _Parcel, left: list[int], future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            if not self._closed:
                self._fail(error)
            return
        left[0] -= 1
        if left[0] == 0:
            with self._room:
                self._pending -= parcel.size
                self.events_confirmed += parcel.events
                self._room.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._room:
            self._failure = self._failure or error
            self._room.notify_all()
