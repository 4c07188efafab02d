"""Control messages for a running simulation, read from ``control.<name>`` topics on a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from astrocyte.pipeline.kafka.client import BrokerAway, consumer_client
from astrocyte.schemas.topics import control_topic

__all__ = ["KafkaControls"]


class KafkaControls:
    """Gives the messages that have come since it was last called; never blocks.

    Messages that were in the topics before it began are not given: they were meant for an earlier run.
    """

    def __init__(self, broker: str, names: Sequence[str]) -> None:
        self._broker = broker
        self._topics = {control_topic(name): name for name in names}
        self._found: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()), name="controls", daemon=True)
        self._thread.start()

    def __call__(self) -> Iterator[tuple[str, Any]]:
        """Name and message of each."""
        while True:
            try:
                yield self._found.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(10.0)

    async def _read(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(BrokerAway):
                await self._follow()
            await asyncio.sleep(0.2)

    async def _follow(self) -> None:
        from aiokafka import TopicPartition

        async with consumer_client(self._broker) as consumer:
            known: set[TopicPartition] = set()
            while not self._stop.is_set():
                there = await consumer.topics()
                places = {
                    TopicPartition(topic, partition)
                    for topic in self._topics.keys() & there
                    for partition in consumer.partitions_for_topic(topic) or ()
                }
                if places - known:
                    consumer.assign(sorted(places))
                    await consumer.seek_to_end(*(places - known))
                    known = places
                if not known:
                    await asyncio.sleep(0.5)
                    continue
                for place, messages in (await consumer.getmany(timeout_ms=200)).items():
                    for message in messages:
                        self._found.put((self._topics[place.topic], _decode(message.value)))


def _decode(value: bytes | None) -> Any:
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return value  # the scenario refuses it with a reason, and the run goes on
    return body.get("values", body) if isinstance(body, dict) else body
