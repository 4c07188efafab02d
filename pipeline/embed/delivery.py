"""Delivery of a publisher's events: a thread with an event loop of its own, which the program never waits for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from astrocyte.pipeline.embed.encoding import EncodedEvent, Message, messages_of
from astrocyte.pipeline.embed.outbox import CLOSED, Outbox
from astrocyte.pipeline.kafka.client import BrokerUnavailable, ensure_topics
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.pipeline.transport.client_log import StateLog
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.partitioning import partitions_of

if TYPE_CHECKING:
    from astrocyte.pipeline.transport.producer import ConfirmedProducer

__all__ = ["Delivery", "MissedLog", "Target"]

_CHUNK_EVENTS: Final = 5_000
_CHUNK_BYTES: Final = 4 << 20
_OVERFLOW_EVENTS: Final = 2_000
"""Events that one call of ``emit`` writes to the log to make room, about 20 ms of work."""
_HELPERS: Final = 2
_RETRY_S: Final = 0.5
_RESTART_S: Final = 1.0
_START_S: Final = 30.0
_GRACE_S: Final = 8.0
"""Time that closing the connections may take beyond the time for delivery; each of aiokafka's steps is limited."""
_log = logging.getLogger("astrocyte.publisher")


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go: the broker, and how topics are created that it lacks."""

    broker: str
    partitions: int
    replication: int


class MissedLog:
    """A recorded log in a folder, begun with the first event that could not be sent. For one thread at a time.

    Raises InvalidSettings for a folder that cannot be made, or in which no file can be written.
    """

    def __init__(self, folder: Path, name: str, partitions: int) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder) as trial:
                trial.write(b"\0")
        except OSError as error:
            raise InvalidSettings(
                f"missed {str(folder)!r}: no file can be written there ({error.strerror or error}); expected a folder, "
                "or the name of a new one, that this program may write to"
            ) from None
        self.path = folder / f"{name}.jsonl.zst"
        self._partitions = partitions
        self._writer: LogWriter | None = None
        self._offsets: dict[tuple[str, int], int] = {}

    def write(self, events: Sequence[EncodedEvent], run: str) -> None:
        """Append the messages of events; readable even if this process is killed. Raises OSError, InvalidLog.

        A file that was deleted meanwhile is reported, and a new one is begun.
        """
        if self._writer is not None:
            try:
                self._append(self._writer, events, run)
            except InvalidLog as error:
                self._writer = None
                _log.warning("%s: %s; what follows goes to a new file of that name", run, error)
            else:
                return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = LogWriter(self.path, LogHeader(source="a publisher"))
        self._append(self._writer, events, run)

    def _append(self, writer: LogWriter, events: Sequence[EncodedEvent], run: str) -> None:
        times = {event.seq: event.time_us // 1000 for event in events}
        messages = messages_of(events, run)
        records: list[ConsumedRecord] = []
        for message, partition in zip(messages, _partitions(messages, self._partitions), strict=True):
            place = (message.topic, partition)
            offset = self._offsets.get(place, 0)
            self._offsets[place] = offset + 1
            headers = tuple(message.headers)
            item = ConsumedRecord(*place, offset, times[message.seq], message.key, message.value, headers)
            records.append(item)
        try:
            for item in records:
                writer.write(item)
            writer.flush()
        except OSError:
            # These events count as dropped. Kept here, they would take memory for as long as the disk is full.
            writer.discard()
            raise

    def close(self) -> None:
        """Give the file its name, if there is one."""
        if self._writer is not None:
            self._writer.close()


class _Helpers(ThreadPoolExecutor):
    """Threads that an event loop uses for what blocks, such as looking up the address of a host.

    Those of `concurrent.futures` take no work once the main thread has ended, which is when a program's last events are
    delivered.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        for number in range(_HELPERS):
            threading.Thread(target=self._work, name=f"astrocyte-publisher-helper-{number}", daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function in one of the threads."""
        future: Future[Any] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  as called
        """End the threads when they have done what was given to them; never waits."""
        for _ in range(_HELPERS):
            self._calls.put(None)

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001  the caller's to handle
                    future.set_exception(error)


class Delivery:
    """Takes events out of an outbox and delivers them, in order, for as long as the program runs."""

    def __init__(self, outbox: Outbox, target: Target, run: str, missed: MissedLog | None) -> None:
        self._outbox, self._target, self._run, self._missed = outbox, target, run, missed
        self._state = StateLog("publisher", target.broker, "the program goes on and events wait in a bounded buffer")
        self._closing = False
        self._logging = threading.RLock()  # a signal handler may close the publisher while its thread writes the log
        self._ready = threading.Event()
        self._partitions: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Helpers())
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="astrocyte-publisher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something in the outbox."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._wake.set)

    def wait_ready(self) -> None:
        """Wait until the libraries are imported that deliver: a busy machine's time for that is not the broker's."""
        self._ready.wait(_START_S)

    def stop(self) -> None:
        """Disconnect; returns within some seconds. What is not confirmed goes to the log, else it counts as dropped.

        Also where another thread does not get on with the log: its disk hangs, or it waits for a lock of the thread
        that calls this in a signal handler.
        """
        self._closing = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        self._outbox.close()
        locked = self._logging.acquire(timeout=_GRACE_S)
        try:
            left = self._outbox.close()  # again: another thread may have written some of them meanwhile
            if self._missed is not None and locked:
                self._log_missed(left)
                self._missed.close()
        except (OSError, InvalidLog) as error:
            _log.warning("%s: the log of what was not sent: %s", self._run, error)
        finally:
            if locked:
                self._logging.release()
        self._outbox.settle([event.seq for event in left], None, CLOSED)
        self._thread.join(_GRACE_S)

    def make_room(self) -> bool:
        """Write the oldest events that wait to the log, in the calling thread; whether there were any."""
        with self._logging:
            events = self._outbox.take(_OVERFLOW_EVENTS, _CHUNK_BYTES)
            self._log_missed(events)
            return bool(events)

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._main = self._loop.create_task(self._keep_delivering())
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _keep_delivering(self) -> None:
        while not self._closing:
            try:
                await self._deliver()
            except Exception:  # noqa: BLE001  a fault of one round must not end publishing for good
                _log.exception("publishing was interrupted and begins again")
                self._outbox.take_back()
                self._wake.set()
                await asyncio.sleep(_RESTART_S)

    async def _deliver(self) -> None:
        from astrocyte.pipeline.transport.producer import ConfirmedProducer
        from astrocyte.pipeline.transport.producer_record import producer_settings

        producer = ConfirmedProducer(
            producer_settings(self._target.broker), should_stop=lambda: self._closing, state=self._state
        )
        self._ready.set()
        overflow = None if self._missed is None else asyncio.create_task(self._watch_overflow())
        try:
            await producer.start()
            while True:
                await self._wake.wait()
                self._wake.clear()
                while events := self._outbox.take(_CHUNK_EVENTS, _CHUNK_BYTES):
                    await self._send(producer, events)
        finally:
            if overflow is not None:
                overflow.cancel()
            await producer.stop(0.0)
            await asyncio.sleep(0)  # callbacks of aiokafka's futures run, else asyncio warns of their exceptions

    async def _send(self, producer: ConfirmedProducer, events: Sequence[EncodedEvent]) -> None:
        from astrocyte.pipeline.transport.producer_record import DeliveryFailed

        parts: dict[tuple[str, int], list[Message]] = {}
        for topic, group in groupby(messages_of(events, self._run), key=attrgetter("topic")):
            messages = list(group)
            try:
                count = await self._partition_count(topic)
            except AstrocyteError as error:
                self._outbox.settle([each.seq for each in messages], None, str(error))
                continue
            for message, partition in zip(messages, _partitions(messages, count), strict=True):
                parts.setdefault((topic, partition), []).append(message)
        sent: list[tuple[int, list[Message], list[asyncio.Future[Any]]]] = []
        for (topic, partition), messages in parts.items():
            records = [_record(each, partition) for each in messages]
            futures = await producer.send_batch(topic, partition, records)
            sent.append((partition, messages, futures))
        for partition, messages, futures in sent:
            try:
                await asyncio.gather(*futures)
            except DeliveryFailed:
                # Some of them were refused: sent again one by one, each is known to be delivered or not. Events that
                # arrive twice have the same id.
                for message in messages:
                    await self._send_alone(producer, message, partition)
            else:
                self._outbox.settle([each.seq for each in messages], "delivered")

    async def _send_alone(self, producer: ConfirmedProducer, message: Message, partition: int) -> None:
        from astrocyte.pipeline.transport.producer_record import DeliveryFailed

        try:
            await (await producer.send(_record(message, partition)))
        except DeliveryFailed as error:
            self._outbox.settle([message.seq], None, str(error))
        else:
            self._outbox.settle([message.seq], "delivered")

    async def _partition_count(self, topic: str) -> int:
        """Partitions of a topic, which is created if it is missing. Raises AstrocyteError if that is refused."""
        while topic not in self._partitions:
            try:
                found = await ensure_topics(
                    self._target.broker, {topic: self._target.partitions}, replication=self._target.replication
                )
            except (BrokerUnavailable, OSError, TimeoutError) as error:
                self._state.away(f"{type(error).__name__}: {str(error).split(';')[0]}")
                await asyncio.sleep(_RETRY_S)
            else:
                self._partitions |= found
        return self._partitions[topic]

    async def _watch_overflow(self) -> None:
        """Move the oldest events into the log while more than half of the buffer is taken."""
        assert self._missed is not None
        while True:
            while self._outbox.is_crowded and await asyncio.to_thread(self.make_room):
                pass
            await asyncio.sleep(0.05)

    def _log_missed(self, events: Sequence[EncodedEvent]) -> None:
        """Write events in flight to the log and settle them; the caller holds the lock of the log."""
        assert self._missed is not None
        if not events:
            return
        numbers = [event.seq for event in events]
        try:
            self._missed.write(events, self._run)
        except (OSError, InvalidLog) as error:
            self._outbox.settle(numbers, None, f"the log {self._missed.path} cannot be written: {error}")
        else:
            self._outbox.settle(numbers, "logged")


def _record(message: Message, partition: int) -> Any:
    from astrocyte.pipeline.transport.producer_record import ProducerRecord

    return ProducerRecord(message.topic, message.value, message.key, partition, message.headers)


def _partitions(messages: Sequence[Message], count: int) -> list[int]:
    """Partition of each message: by its key, else in turn."""
    keys = pa.array([message.key or b"" for message in messages], pa.binary())
    hashed = partitions_of(keys, count).tolist()
    return [
        message.seq % count if message.key is None else partition
        for message, partition in zip(messages, hashed, strict=True)
    ]
