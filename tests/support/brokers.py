"""Fixtures that run a test on the embedded broker and on a real Kafka.

A test module takes them by importing them: pytest finds fixtures where their names are.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from astrocyte.pipeline.broker import BrokerProcess
from tests.support.kafka import Kafka, kafka_or_skip

BOTH = ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]
NOWHERE = "127.0.0.1:1"
"""An address where no broker is."""


class Broker(Protocol):
    """What the two have in common. Data and port survive ``kill``."""

    @property
    def address(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def start(self) -> object: ...

    def kill(self) -> object: ...

    def stop(self) -> object: ...


@pytest.fixture(scope="session")
def shared_embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """An embedded broker for the whole session; tests use their own topics and groups and leave it running."""
    broker = BrokerProcess(tmp_path_factory.mktemp("embedded"), auto_create_topics=False)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def real_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A running Kafka for the whole session; tests use their own topics and groups, or take `empty_kafka`."""
    kafka_or_skip()
    broker = Kafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def empty_kafka(real_kafka: Kafka) -> Kafka:
    """The session's Kafka without topics, for tests that cannot name their own: starting another one takes longer."""
    asyncio.run(_delete_topics(real_kafka.address))
    return real_kafka


async def _delete_topics(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        async with asyncio.timeout(60):
            while topics := [topic for topic in await admin.list_topics() if not topic.startswith("__")]:
                await admin.delete_topics(topics)
    finally:
        await admin.close()


@pytest.fixture(params=BOTH)
def address(request: pytest.FixtureRequest) -> str:
    """Address of a broker that all tests of the session share."""
    name = "shared_embedded" if request.param == "embedded" else "real_kafka"
    return str(request.getfixturevalue(name).address)


@pytest.fixture
def embedded_address(shared_embedded: BrokerProcess) -> str:
    """Address of the embedded broker that all tests of the session share."""
    return shared_embedded.address


@pytest.fixture
def own_embedded(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A running embedded broker that the test may kill and start again."""
    # Retention and compaction in each second: they must disturb nothing.
    broker = BrokerProcess(tmp_path / "broker", auto_create_topics=False, maintenance_interval_s=1.0)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(params=BOTH)
def own_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A running broker that the test may kill and start again."""
    if request.param == "embedded":
        yield request.getfixturevalue("own_embedded")
        return
    broker: Kafka = request.getfixturevalue("empty_kafka")
    yield broker
    if not broker.answers():  # to start takes ten seconds of a processor
        broker.kill()
        broker.start()


def pause(broker: Broker) -> None:
    """Let the broker hang: connections stay open and nothing is answered."""
    os.kill(broker.pid, signal.SIGSTOP)


def resume(broker: Broker) -> None:
    """End `pause`."""
    os.kill(broker.pid, signal.SIGCONT)


def read_all(address: str, topic: str, *, isolation: str = "read_committed") -> dict[int, list[Any]]:
    """All records of a topic by partition, from its start to its current end."""

    async def read() -> dict[int, list[Any]]:
        options = {"isolation_level": isolation, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 50}
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, **options)
        await consumer.start()
        try:
            places = sorted(consumer.assignment())
            ends = await consumer.end_offsets(places)
            found: dict[int, list[Any]] = {place.partition: [] for place in places}
            while any([await consumer.position(place) < ends[place] for place in places]):
                for place, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[place.partition] += records
            return found
        finally:
            await consumer.stop()

    return asyncio.run(read())
