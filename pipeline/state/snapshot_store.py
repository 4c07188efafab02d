"""Snapshots in a compacted Kafka topic, one partition per domain."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Protocol

from astrocyte.pipeline.kafka.client import consumer_client
from astrocyte.pipeline.state.snapshots import SnapshotParts, parts_of
from astrocyte.pipeline.transport.producer_record import ProducerRecord

__all__ = ["KafkaStateStore", "StateStore", "messages_of_topic"]


async def messages_of_topic(
    broker: str, topic: str, partition: int = 0
) -> AsyncIterator[tuple[bytes | None, bytes | None]]:
    """Key and value of every message up to the partition's current end, in order."""
    from aiokafka import TopicPartition

    place = TopicPartition(topic, partition)
    async with consumer_client(broker) as consumer:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            for messages in (await consumer.getmany(place, timeout_ms=1000)).values():
                for message in messages:
                    yield message.key, message.value


class StateStore(Protocol):
    """Where snapshots are kept (`KafkaStateStore`)."""

    async def load(self, partition: int) -> tuple[int, bytes] | None:
        """Number and bytes of the newest complete snapshot of a partition."""

    def messages(self, partition: int, number: int, data: bytes) -> list[ProducerRecord]:
        """Records that store a snapshot."""


class KafkaStateStore:
    """The state topic of one consumer group, of ``partitions`` partitions. Snapshots of domain N are in partition N.

    Domains with higher numbers, which only count the events of a repartitioned topic, share the partitions.
    """

    def __init__(self, broker: str, topic: str, partitions: int) -> None:
        self._broker = broker
        self._topic = topic
        self._partitions = partitions
        self._writer = uuid.uuid4().hex[:12]

    async def load(self, partition: int) -> tuple[int, bytes] | None:
        """Number and bytes of the newest complete snapshot of a partition; None where there is none."""
        parts = SnapshotParts()
        async for key, value in messages_of_topic(self._broker, self._topic, partition % self._partitions):
            if key is not None:
                parts.add(key, value)
        return parts.newest(_name(partition))

    def messages(self, partition: int, number: int, data: bytes) -> list[ProducerRecord]:
        """Records that store a snapshot, in order."""
        return [
            ProducerRecord(self._topic, value, key, partition % self._partitions)
            for key, value in parts_of(_name(partition), number % 2, number, data, self._writer)
        ]


def _name(partition: int) -> str:
    return f"domain-{partition}"
