"""Records through four clients of Kafka: aiokafka, librdkafka (confluent-kafka), kcat, and Kafka's own Java client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.broker import kcat
from tests.support.kafka import kafka_or_skip, run_tool

__all__ = ["CLIENTS", "Acks", "Pair", "Refused", "available", "make_topic", "read", "write"]

Pair = tuple[bytes | None, bytes]
"""Key and value: printable, without a colon or newline, since two of the clients read and write lines."""
Acks = Literal["all", "1", "0"]
CLIENTS = ("aiokafka", "librdkafka", "kcat", "java")


class Refused(Exception):
    """What a client said of a record that the broker did not take."""


def available(client: str) -> None:
    """Skip the test where a client is not installed; in CI, where it must be, let it fail."""
    if client == "kcat":
        kcat()
    elif client == "java":
        kafka_or_skip("kafka-tools")


def make_topic(address: str, topic: str, partitions: int, config: dict[str, str] | None = None) -> None:
    """Create a topic of one replica."""
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(20)


def write(client: str, address: str, topic: str, pairs: list[Pair], *, codec: str, acks: Acks) -> None:
    """Write records with one client; returns when they are sent. Raises Refused."""
    {"aiokafka": _write_aiokafka, "librdkafka": _write_librdkafka, "kcat": _write_kcat, "java": _write_java}[client](
        address, topic, pairs, codec, acks
    )


def read(client: str, address: str, topic: str, partitions: int, count: int) -> list[Pair]:
    """The first records of a topic, sorted."""
    found: Callable[[str, str, int, int], list[Pair]] = {
        "aiokafka": _read_aiokafka, "librdkafka": _read_librdkafka, "kcat": _read_kcat, "java": _read_java,
    }[client]  # fmt: skip
    return sorted(found(address, topic, partitions, count), key=lambda pair: (pair[0] or b"", pair[1]))


def _write_aiokafka(address: str, topic: str, pairs: list[Pair], codec: str, acks: Acks) -> None:
    async def send() -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=address,
            compression_type=None if codec == "none" else codec,
            acks="all" if acks == "all" else int(acks),
            enable_idempotence=acks == "all",
        ) as producer:
            sent = [await producer.send(topic, value, key=key) for key, value in pairs]
            for found in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(found, Exception):
                    raise Refused(f"{type(found).__name__}: {found}") from found

    asyncio.run(send())


def _read_aiokafka(address: str, topic: str, partitions: int, count: int) -> list[Pair]:
    async def receive() -> list[Pair]:
        consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        async with consumer:
            records = [await asyncio.wait_for(consumer.getone(), 30) for _ in range(count)]
        return [(record.key, record.value) for record in records]

    return asyncio.run(receive())


def _write_librdkafka(address: str, topic: str, pairs: list[Pair], codec: str, acks: Acks) -> None:
    failed: list[str] = []

    def note(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(f"{error.name()}: {error}")

    producer = Producer(
        {
            "bootstrap.servers": address, "compression.type": codec, "acks": acks, "enable.idempotence": acks == "all",
            "linger.ms": 5,
        }
    )  # fmt: skip
    for key, value in pairs:
        producer.produce(
            topic,
            value,
            key=key,
            on_delivery=lambda error, _message: error and failed.append(f"{error.name()}: {error}"),
        )
    assert producer.flush(30) == 0
    if failed:
        raise Refused(failed[0])


def _read_librdkafka(address: str, topic: str, partitions: int, count: int) -> list[Pair]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([ConfluentPartition(topic, number, 0) for number in range(partitions)])
    found: list[Pair] = []
    for _ in range(300):
        messages = consumer.consume(count - len(found), 0.1)
        found += [(each.key(), each.value()) for each in messages if each.error() is None]
        if len(found) >= count:
            break
    consumer.close()
    return found


def _lines(pairs: list[Pair]) -> bytes:
    return b"".join((b"" if key is None else key + b":") + value + b"\n" for key, value in pairs)


def _pairs(lines: bytes) -> list[Pair]:
    cut = [line.partition(b":") for line in lines.splitlines()]
    return [(key, value) for key, _, value in cut]


def _kcat(address: str, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        [kcat(), "-b", address, *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        raise Refused(done.stderr.decode())
    return done.stdout


def _write_kcat(address: str, topic: str, pairs: list[Pair], codec: str, acks: Acks) -> None:
    keyed = ["-K:"] if pairs[0][0] is not None else []
    _kcat(address, "-P", "-t", topic, *keyed, "-z", codec, "-X", f"acks={acks}", stdin=_lines(pairs))


def _read_kcat(address: str, topic: str, _partitions: int, count: int) -> list[Pair]:
    return _pairs(_kcat(address, "-C", "-t", topic, "-K:", "-o", "beginning", "-q", "-c", str(count)))


def _write_java(address: str, topic: str, pairs: list[Pair], codec: str, acks: Acks) -> None:
    place = ["--bootstrap-server", address, "--topic", topic]
    if pairs[0][0] is None:
        # The console producer says nothing of what was refused; this one writes its own values, without keys.
        done = run_tool("VerifiableProducer", *place, "--max-messages", str(len(pairs)), "--acks", "-1")
        errors = [line for line in done.stdout.decode().splitlines() if "producer_send_error" in line]
        if errors:
            raise Refused(errors[0])
        return
    done = run_tool(
        "ConsoleProducer", *place, "--property", "parse.key=true", "--property", "key.separator=:",
        "--compression-codec", codec, "--producer-property", f"acks={acks}", stdin=_lines(pairs),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def _read_java(address: str, topic: str, _partitions: int, count: int) -> list[Pair]:
    done = run_tool(
        "consumer.ConsoleConsumer", "--bootstrap-server", address, "--topic", topic, "--from-beginning",
        "--max-messages", str(count), "--timeout-ms", "30000", "--property", "print.key=true",
        "--property", "key.separator=:",
    )  # fmt: skip
    return _pairs(done.stdout)
