"""Control messages for a running simulation, read from ``control.<name>`` topics on a separate thread."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from astrocyte.pipeline.kafka.client import BrokerUnavailable, admin_client, consumer_client, partition_counts
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent
from astrocyte.schemas.events import is_command
from astrocyte.schemas.json.text import read_value
from astrocyte.schemas.topics import control_topic

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

__all__ = ["KafkaControls"]

_SHOWN: Final = 1000
"""Bytes of a refused message that are recorded."""
_REMEMBERED: Final = 10_000
"""Commands that are recognised if they come again: more than result from the one chunk that a role repeats."""
_LOOK_S: Final = 1.0
"""Interval of the checks for topics that were created in the meantime."""


class KafkaControls:
    """Yields the messages for ``run`` that have arrived since the previous call; a call never blocks.

    The constructor returns when the end offsets of the topics are known, and waits while the broker is unavailable.
    Messages before these offsets are skipped: they were meant for an earlier run. A topic that is created later is read
    from its beginning, and after a broken connection reading continues at its offset. A message that names another run
    is skipped; one that names no run applies to every run. A command of a controller that is identical to one of the
    last `_REMEMBERED` is skipped too: its role, killed before it had stored its state, repeats it. Raises
    AstrocyteError, from the constructor or a call, if the broker refuses a request.
    """

    def __init__(self, broker: str, names: Sequence[str], *, run: str) -> None:
        self._broker, self._run = broker, run
        self._topics = {control_topic(name): name for name in names}
        self._found: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._next: dict[TopicPartition, int] | None = None
        self._taken: dict[tuple[str, bytes], None] = {}
        """The last commands, oldest first."""
        self._ready, self._stop = threading.Event(), threading.Event()
        self._failure: AstrocyteError | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()), name="controls", daemon=True)
        self._thread.start()
        self._ready.wait()
        self._raise()

    def __call__(self) -> Iterator[tuple[str, Any]]:
        """Name of the control and content of each message."""
        self._raise()
        while True:
            try:
                yield self._found.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(10.0)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _read(self) -> None:
        try:
            while not self._stop.is_set():
                with contextlib.suppress(BrokerUnavailable):
                    async with admin_client(self._broker) as admin, consumer_client(self._broker) as consumer:
                        await self._follow(admin, consumer)
                await asyncio.sleep(0.2)
        except AstrocyteError as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _follow(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        assigned: set[TopicPartition] = set()
        looked = -_LOOK_S
        while not self._stop.is_set():
            if time.monotonic() - looked >= _LOOK_S:
                # Asks the admin client: a consumer does not know the partitions of topics that it does not track.
                places = await self._places(admin)
                if self._next is None:
                    self._next = dict(await consumer.end_offsets(sorted(places))) if places else {}
                if places != assigned:
                    consumer.assign(sorted(places))
                    for place in places:
                        consumer.seek(place, self._next.setdefault(place, 0))
                    assigned = places
                self._ready.set()
                looked = time.monotonic()
            if not assigned:
                await asyncio.sleep(0.2)
                continue
            for place, messages in (await consumer.getmany(timeout_ms=200)).items():
                for message in messages:
                    self._take(self._topics[place.topic], message.value)
                    assert self._next is not None
                    self._next[place] = message.offset + 1

    async def _places(self, admin: AIOKafkaAdminClient) -> set[TopicPartition]:
        from aiokafka import TopicPartition

        counts = await partition_counts(admin)
        return {TopicPartition(topic, number) for topic in self._topics for number in range(counts.get(topic, 0))}

    def _take(self, name: str, value: bytes | None) -> None:
        try:
            body = read_value(value)
        except InvalidEvent:
            # The scenario refuses it with a reason, and the run continues.
            self._found.put((name, None if value is None else value[:_SHOWN]))
            return
        if not isinstance(body, dict):
            self._found.put((name, body))
        elif is_command(body) and self._is_repeated(name, value or b""):
            return
        elif body.get("run") in (None, self._run):
            self._found.put((name, body.get("values", body)))

    def _is_repeated(self, name: str, value: bytes) -> bool:
        if (name, value) in self._taken:
            return True
        self._taken[name, value] = None
        if len(self._taken) > _REMEMBERED:
            del self._taken[next(iter(self._taken))]
        return False
