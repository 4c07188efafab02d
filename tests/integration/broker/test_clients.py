"""Real clients on the broker: aiokafka, confluent-kafka (librdkafka) and kcat."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import threading
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from astrocyte.pipeline.broker import BrokerThread
from tests.support.broker import CODECS, EmbeddedBroker, kcat
from tests.support.waiting import eventually, wait_until

PARTITIONS = 4
BIG = 30 << 20


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One broker for the module; every test has its own topics and groups."""
    with BrokerThread(
        tmp_path_factory.mktemp("broker"), default_partitions=PARTITIONS, initial_rebalance_delay_s=0.05
    ) as running:
        yield running


@pytest.fixture
def topic():
    return f"topic-{uuid.uuid4().hex[:8]}"


def aio_consumer(broker, topic, group, **config):
    return AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker.address,
        group_id=group,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        heartbeat_interval_ms=100,
        rebalance_timeout_ms=6000,
        **config,
    )


def confluent_consumer(broker, group, **config):
    return Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 100,
            "topic.metadata.refresh.interval.ms": 500,
        }
        | config
    )


# aiokafka


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_aiokafka_reads_what_it_wrote_with_every_codec(broker, topic, codec):
    async with AIOKafkaProducer(
        bootstrap_servers=broker.address, compression_type=codec, enable_idempotence=True, linger_ms=5
    ) as producer:
        sent = [
            await producer.send(topic, b"value %d" % i, key=b"key %d" % i, headers=[("h", b"%d" % i)])
            for i in range(500)
        ]
        await asyncio.gather(*sent)
    async with aio_consumer(broker, topic, f"g-{topic}") as consumer:
        records = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(500)]
    assert {(r.key, r.value, r.headers) for r in records} == {
        (b"key %d" % i, b"value %d" % i, (("h", b"%d" % i),)) for i in range(500)
    }


async def test_aiokafka_members_join_and_leave_and_every_record_is_processed(broker, topic):
    """The second member joins while the first is working, the first leaves; each commits what it has processed."""
    group, sent, processed = f"g-{topic}", 0, []
    stops, assigned = [asyncio.Event(), asyncio.Event()], [set(), set()]

    async def member(i):
        async with aio_consumer(broker, topic, group, enable_auto_commit=False) as consumer:
            while not stops[i].is_set():
                for records in (await consumer.getmany(timeout_ms=50, max_records=20)).values():
                    processed.extend((r.partition, r.offset) for r in records)
                try:
                    await consumer.commit()
                except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError):
                    continue  # of an old generation: its records are delivered again
                assigned[i] = set(consumer.assignment())

    async with AIOKafkaProducer(bootstrap_servers=broker.address, linger_ms=2) as producer:

        async def send(count):
            nonlocal sent
            await asyncio.gather(*[await producer.send(topic, b"v", key=b"%d" % i) for i in range(sent, sent + count)])
            sent += count

        await send(400)
        first = asyncio.create_task(member(0))
        await eventually(lambda: len(assigned[0]) == PARTITIONS, what="the first member's assignment")
        second = asyncio.create_task(member(1))
        await send(400)
        await eventually(lambda: [len(a) for a in assigned] == [2, 2], what="a shared assignment")
        assert not assigned[0] & assigned[1]
        await send(400)
        stops[0].set()
        await first
        await send(400)
        await eventually(lambda: len(assigned[1]) == PARTITIONS, what="the whole assignment")
        await eventually(lambda: len(set(processed)) == sent, what="all records")
    stops[1].set()
    await second


async def test_aiokafka_finds_offsets_by_time_and_the_ends(broker, topic):
    async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
        for i in range(10):
            await producer.send_and_wait(topic, b"v", partition=0, timestamp_ms=1000 * (i + 1))
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address)
    await consumer.start()
    consumer.assign([partition])
    try:
        found = await consumer.offsets_for_times({partition: 4500})
        assert (found[partition].offset, found[partition].timestamp) == (4, 5000)
        assert (await consumer.offsets_for_times({partition: 99_000}))[partition] is None
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        assert await consumer.end_offsets([partition]) == {partition: 10}
    finally:
        await consumer.stop()


async def test_aiokafka_admin_sees_groups_and_their_offsets(broker, topic):
    async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
        await producer.send_and_wait(topic, b"v", partition=2)
    group = f"g-{topic}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        async with aio_consumer(broker, topic, group, enable_auto_commit=False) as consumer:
            record = await asyncio.wait_for(consumer.getone(), 20)
            await consumer.commit()
            assert (group, "consumer") in await admin.list_consumer_groups()
            described = (await admin.describe_consumer_groups([group]))[0].groups[0]
            assert described[1:3] == (group, "Stable")
            assert len(described[5]) == 1
        offsets = await admin.list_consumer_group_offsets(group)
        assert offsets[TopicPartition(topic, 2)].offset == record.offset + 1
    finally:
        await admin.close()


async def test_a_message_of_30_mb_passes(broker, topic):
    value = os.urandom(1 << 20) * 30
    async with AIOKafkaProducer(
        bootstrap_servers=broker.address, max_request_size=BIG + 1000, request_timeout_ms=60_000
    ) as producer:
        await producer.send_and_wait(topic, value, partition=0)
        await producer.send_and_wait(topic, b"small", partition=0)
    async with aio_consumer(broker, topic, f"g-{topic}") as consumer:
        assert (await asyncio.wait_for(consumer.getone(), 60)).value == value
        assert (await asyncio.wait_for(consumer.getone(), 20)).value == b"small"


async def test_a_message_beyond_the_limit_is_refused_and_the_next_is_accepted(tmp_path, topic):
    from aiokafka.errors import MessageSizeTooLargeError

    async with (
        EmbeddedBroker(tmp_path, port=0, max_message_bytes=10_000, max_request_bytes=1 << 20) as broker,
        AIOKafkaProducer(bootstrap_servers=broker.address) as producer,
    ):
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, b"x" * 20_000)
        await producer.send_and_wait(topic, b"x" * 9000)


# confluent-kafka


def produce_all(broker, topic, values, **config):
    failed = []
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 2} | config)
    for i, value in enumerate(values):
        producer.produce(
            topic, value, key=b"%d" % i, on_delivery=lambda error, _message: error and failed.append(error)
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert failed == []


def consume(consumer, count, into=None):
    values = [] if into is None else into
    for _ in range(1000):
        for message in consumer.consume(200, 0.1):
            if message.error() is None:
                values.append(message.value())
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
        if len(values) >= count:
            return values
    raise AssertionError(f"{len(values)} of {count} records came")


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky", "static"])
def test_librdkafka_members_join_and_leave_and_every_record_is_processed(broker, topic, strategy):
    config = {"partition.assignment.strategy": "range" if strategy == "static" else strategy}
    total, group, processed = 1200, f"g-{topic}", []
    stops = [threading.Event(), threading.Event()]
    AdminClient({"bootstrap.servers": broker.address}).list_topics(topic, timeout=10)
    assigned = [set(), set()]

    def member(i):
        own = config | ({"group.instance.id": f"instance-{i}"} if strategy == "static" else {})
        consumer = confluent_consumer(broker, group, **own, **{"enable.auto.commit": False})
        consumer.subscribe([topic])
        while not stops[i].is_set():
            for message in consumer.consume(20, 0.05):
                if message.error() is None:
                    processed.append(message.value())
                    consumer.commit(message=message, asynchronous=True)
            assigned[i] = {p.partition for p in consumer.assignment()}
        consumer.close()

    threads = [threading.Thread(target=member, args=(i,)) for i in range(2)]
    threads[0].start()
    wait_until(lambda: len(assigned[0]) == PARTITIONS, what="the first member's assignment")
    produce_all(broker, topic, [b"%d" % i for i in range(total // 2)])
    threads[1].start()
    wait_until(lambda: len(assigned[0]) == len(assigned[1]) == PARTITIONS // 2, what="a shared assignment")
    assert not assigned[0] & assigned[1]
    produce_all(broker, topic, [b"%d" % i for i in range(total // 2, total)])
    stops[0].set()
    threads[0].join(30)
    if strategy == "static":
        again = confluent_consumer(broker, group, **config, **{"group.instance.id": "instance-0"})
        again.subscribe([topic])
        consume_until = len(set(processed))
        wait_until(lambda: again.consume(10, 0.05) or len(again.assignment()) == 2, what="the same assignment")
        assert len(assigned[1]) == PARTITIONS // 2, "a static member's return moves no partition"
        assert consume_until <= total
        stops[1].set()
        threads[1].join(30)
        again.close()
        return
    wait_until(lambda: len(assigned[1]) == PARTITIONS, what="the whole assignment")
    wait_until(lambda: len(set(processed)) == total, what="all records")
    stops[1].set()
    threads[1].join(30)


def test_librdkafka_admin_lists_offsets_by_time_and_group(broker, topic):
    produce_all(broker, topic, [b"v"] * 10)
    admin = AdminClient({"bootstrap.servers": broker.address})
    partitions = [ConfluentPartition(topic, i) for i in range(PARTITIONS)]
    ends = admin.list_offsets(dict.fromkeys(partitions, OffsetSpec.latest()))
    assert sum(future.result(10).offset for future in ends.values()) == 10
    consumer = confluent_consumer(broker, f"g-{topic}")
    consumer.subscribe([topic])
    consume(consumer, 10)
    consumer.commit(asynchronous=False)
    lag = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(f"g-{topic}")])[f"g-{topic}"].result(10)
    assert sum(p.offset for p in lag.topic_partitions) == 10
    described = admin.describe_consumer_groups([f"g-{topic}"])[f"g-{topic}"].result(10)
    assert len(described.members) == 1
    consumer.close()
    admin.delete_consumer_groups([f"g-{topic}"])[f"g-{topic}"].result(10)


# kcat


def run_kcat(broker, *arguments, stdin=b""):
    run = subprocess.run(
        [kcat(), "-b", broker.address, *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


def test_kcat_lists_topics_and_queries_offsets(broker, topic):
    run_kcat(broker, "-P", "-t", topic, "-p", "1", stdin=b"a\nb\nc\n")
    listed = json.loads(run_kcat(broker, "-L", "-J", "-t", topic))
    assert len(listed["topics"][0]["partitions"]) == PARTITIONS
    assert listed["brokers"][0]["name"] == broker.address
    assert b"offset 3" in run_kcat(broker, "-Q", "-t", f"{topic}:1:-1")
    tail = run_kcat(broker, "-C", "-t", topic, "-p", "1", "-o", "-2", "-e", "-q")
    assert tail == b"b\nc\n"


def test_kcat_members_join_and_leave_a_group(broker, topic, tmp_path):
    def produce(numbers):
        run_kcat(broker, "-P", "-t", topic, "-K:", stdin=b"".join(b"%d:%d\n" % (i, i) for i in numbers))

    def start(i):
        quick = ["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=100", "-X", "auto.commit.interval.ms=50"]
        command = [
            kcat(),
            "-b",
            broker.address,
            "-G",
            f"g-{topic}",
            "-u",
            "-X",
            "auto.offset.reset=earliest",
            *quick,
            topic,
        ]
        with (tmp_path / f"out{i}").open("wb") as out, (tmp_path / f"said{i}").open("wb") as said:
            return subprocess.Popen(command, stdout=out, stderr=said)

    def read():
        return {line for i in range(2) for line in (tmp_path / f"out{i}").read_bytes().splitlines()}

    def assignments(i):
        return (tmp_path / f"said{i}").read_bytes().count(b"): assigned")

    (tmp_path / "out1").touch()
    produce(range(200))
    members = [start(0)]
    try:
        wait_until(lambda: len(read()) == 200, what="all records")
        members.append(start(1))
        wait_until(lambda: assignments(1) == 1, what="the second member's assignment")
        wait_until(lambda: assignments(0) == 2, what="the first member's smaller assignment")
        members[0].terminate()
        members[0].wait(20)  # kcat commits a record that arrives while it ends, and does not print it
        produce(range(200, 300))
        wait_until(lambda: len(read()) == 300, what="the records after the first member has left")
    finally:
        for member in members:
            member.kill()
            member.wait()


def test_clients_read_what_the_others_wrote(broker, topic):
    for i, codec in enumerate(itertools.islice(CODECS, 5)):
        run_kcat(broker, "-P", "-t", topic, "-z", codec, stdin=b"kcat %d\n" % i)
        produce_all(broker, topic, [b"librdkafka %d" % i], **{"compression.type": codec})
    consumer = confluent_consumer(broker, f"g-{topic}")
    consumer.subscribe([topic])
    values = consume(consumer, 10)
    consumer.close()
    assert sorted(values) == sorted([b"kcat %d" % i for i in range(5)] + [b"librdkafka %d" % i for i in range(5)])
