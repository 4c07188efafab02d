"""The broker as a whole: its folder, its port, its topics, and what it refuses."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TransactionalIdAuthorizationFailed
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import NewTopic as ConfluentTopic

from astrocyte.pipeline.broker import (
    BrokerError,
    BrokerProcess,
    BrokerSettings,
    BrokerThread,
    DataFolderInUse,
    EmbeddedBroker,
)
from tests.support.broker import full_disk, make_batch, records_from
from tests.support.waiting import eventually, wait_until


def ends(broker):
    return {topic.name: [log.end_offset for log in topic.logs] for topic in broker.topics}


async def test_it_listens_on_loopback_alone_and_says_where(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        assert broker.address == f"127.0.0.1:{broker.port}"
        assert broker._server.sockets[0].getsockname()[0] == "127.0.0.1"


async def test_a_folder_in_use_is_refused_and_the_holder_named(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        with pytest.raises(DataFolderInUse) as refused:
            await EmbeddedBroker(tmp_path, port=0).start()
        for expected in (str(tmp_path), f"process id {os.getpid()}", broker.address, "stop that broker"):
            assert expected in str(refused.value)
    async with EmbeddedBroker(tmp_path, port=0):
        pass


async def test_a_port_in_use_is_refused_and_the_folder_released(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} .*is in use.*another with --port"):
            await EmbeddedBroker(tmp_path, port=port).start()
    async with EmbeddedBroker(tmp_path, port=0):
        pass


async def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"cannot be used.*choose another"):
        await EmbeddedBroker(tmp_path / "file" / "data", port=0).start()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("port", -1),
        ("port", 70000),
        ("port", "9092"),
        ("default_partitions", 0),
        ("segment_bytes", 10),
        ("retention_ms", -2),
        ("flush_interval_s", 0),
        ("verify", "some"),
        ("max_message_bytes", 200 << 20),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(tmp_path, setting, value):
    with pytest.raises(BrokerError, match=setting):
        BrokerSettings(data_dir=tmp_path, **{setting: value})


@pytest.fixture
async def broker(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0, default_partitions=3) as b:
        yield b


@pytest.fixture
async def admin(broker):
    client = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await client.start()
    yield client
    await client.close()


async def test_topics_are_created_described_grown_and_deleted(broker, admin, tmp_path):
    await admin.create_topics([NewTopic("a", 2, 1, topic_configs={"cleanup.policy": "compact"}), NewTopic("b", 3, 1)])
    assert ends(broker) == {"a": [0, 0], "b": [0, 0, 0]}
    await admin.create_partitions({"a": NewPartitions(4)})
    assert len(ends(broker)["a"]) == 4
    described = await admin.describe_topics(["a"])
    assert len(described[0]["partitions"]) == 4
    resources = [ConfigResource(ConfigResourceType.TOPIC, "a"), ConfigResource(ConfigResourceType.BROKER, "0")]
    topic, node = [
        {entry[0]: entry[1] for entry in response.resources[0][4]}
        for response in await described_configs(admin, resources)
    ]
    assert topic["cleanup.policy"] == "compact"
    assert topic["retention.ms"] == "604800000"
    assert node["num.partitions"] == "3"
    await admin.delete_topics(["a"])
    assert "a" not in ends(broker)
    await eventually(lambda: sorted(p.name for p in (tmp_path / "topics").iterdir()) == ["b"], what="the removal")


async def described_configs(admin, resources):
    answers = []
    for resource in resources:
        answers += await admin.describe_configs([resource])
    return answers


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (NewTopic("bad/name", 1, 1), 17),
        (NewTopic("..", 1, 1), 17),
        (NewTopic("x" * 250, 1, 1), 17),
        (NewTopic("there", 1, 1), 36),
        (NewTopic("t", 0, 1), 37),
        (NewTopic("t", 10_001, 1), 37),
        (NewTopic("t", 1, 3), 38),
        (NewTopic("t", 1, 1, topic_configs={"no.such.thing": "1"}), 40),
        (NewTopic("t", 1, 1, topic_configs={"retention.ms": "soon"}), 40),
        (NewTopic("t", 1, 1, topic_configs={"cleanup.policy": "shred"}), 40),
        (NewTopic("t", 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"}), 40),
    ],
)
async def test_an_invalid_topic_is_refused_with_kafkas_code_and_a_reason(broker, admin, topic, code):
    broker.topics.create("there")
    response = await admin.create_topics([topic])
    assert response.topic_errors[0][1] == code
    assert response.topic_errors[0][2]
    assert set(ends(broker)) == {"there"}


async def test_a_topic_created_by_its_first_use_has_the_default_partitions(broker):
    async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
        await producer.send_and_wait("new", b"v")
    assert len(ends(broker)["new"]) == 3


async def test_without_auto_create_an_unknown_topic_stays_unknown(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0, auto_create_topics=False) as broker:
        async with AIOKafkaProducer(bootstrap_servers=broker.address, request_timeout_ms=500) as producer:
            with pytest.raises(KafkaError):
                await producer.send_and_wait("new", b"v")
        assert ends(broker) == {}


async def test_a_transactional_producer_is_refused_with_a_fatal_error(broker, caplog):
    caplog.set_level(logging.WARNING, logger="astrocyte.pipeline.broker")
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, transactional_id="tx")
    with pytest.raises(TransactionalIdAuthorizationFailed):
        await producer.start()
    await producer.stop()
    assert "requested a transaction" in caplog.text


def test_a_transactional_librdkafka_producer_is_refused_with_a_fatal_error(tmp_path):
    with BrokerThread(tmp_path) as broker:
        producer = Producer({"bootstrap.servers": broker.address, "transactional.id": "tx"})
        with pytest.raises(KafkaException) as refused:
            producer.init_transactions(10)
        assert refused.value.args[0].fatal() or not refused.value.args[0].retriable()


async def test_records_topics_and_offsets_are_the_same_in_the_next_run(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        broker.topics.create("t", 2, {"cleanup.policy": "compact", "segment.bytes": "2000"})
        for i in range(20):
            broker.topics.log("t", i % 2).append(make_batch([b"%d" % i * 100], keys=[b"k%d" % i]))
        await broker.maintenance.flush()
        records = [records_from(log) for log in broker.topics.logs()]
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False)
        consumer.assign([TopicPartition("t", 0)])
        await consumer.start()
        await consumer.commit({TopicPartition("t", 0): 7})
        await consumer.stop()
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        topic = broker.topics.get("t")
        assert [records_from(log) for log in topic.logs] == records
        assert topic.config == {"cleanup.policy": "compact", "segment.bytes": "2000"}
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False)
        consumer.assign([TopicPartition("t", 0)])
        await consumer.start()
        assert await consumer.committed(TopicPartition("t", 0)) == 7
        await consumer.stop()


async def test_folders_without_a_topic_are_set_aside_and_deleted_ones_removed(tmp_path, caplog):
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        broker.topics.create("t")
    (tmp_path / "topics" / "stray").mkdir()
    (tmp_path / "topics" / "stray" / "precious").write_text("records")
    (tmp_path / "topics" / ".deleted-1-x").mkdir()
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        assert set(ends(broker)) == {"t"}
        kept = [p for p in (tmp_path / "topics").iterdir() if p.name != "t"]
        assert len(kept) == 1
        assert (kept[0] / "precious").read_text() == "records"
        assert kept[0].name in caplog.text


async def test_old_records_expire_and_compacted_topics_are_compacted(tmp_path):
    now = [1_700_000_000_000]
    async with EmbeddedBroker(
        tmp_path, port=0, now_ms=lambda: now[0], maintenance_interval_s=0.02, flush_interval_s=0.02, segment_bytes=1200
    ) as broker:
        aged = broker.topics.create("aged", 1, {"retention.ms": "5000"}).logs[0]
        kept = broker.topics.create("kept", 1, {"cleanup.policy": "compact"}).logs[0]
        for i in range(40):
            aged.append(make_batch([b"x" * 1000], timestamps=[now[0]]))
            kept.append(make_batch([b"%d" % i * 100], keys=[b"k"], timestamps=[now[0]]))
        await eventually(lambda: kept.stable_offset == 40 and len(records_from(kept)) < 20, what="compaction")
        assert records_from(kept)[-1][0] == 39
        assert aged.start_offset == 0
        now[0] += 6000
        await eventually(lambda: aged.start_offset == 40, what="the end of old records")


def test_a_full_disk_is_an_error_that_producers_retry_and_the_broker_continues(tmp_path):
    with BrokerProcess(tmp_path / "data", default_partitions=1) as broker:
        failed, stored = [], []
        producer = Producer(
            {
                "bootstrap.servers": broker.address,
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": 60_000,
            }
        )

        def send(value):
            producer.produce(
                "t", value, on_delivery=lambda error, _message: (failed if error else stored).append(value)
            )
            producer.poll(0)

        send(b"before")
        assert producer.flush(20) == 0
        log = tmp_path / "data" / "topics" / "t" / "0" / f"{0:020d}.log"
        with full_disk(broker.pid, file_bytes=log.stat().st_size + 30):
            send(b"x" * 1000)
            producer.flush(0.5)
            assert (failed, stored) == ([], [b"before"]), "the broker answers with an error that is retried"
            admin = AdminClient({"bootstrap.servers": broker.address})
            assert "t" in admin.list_topics(timeout=10).topics, "reading goes on"
            refused = admin.create_topics([ConfluentTopic("other", 1, 1)])["other"]
            with pytest.raises(KafkaException):
                refused.result(10)
        assert producer.flush(30) == 0
        assert (failed, stored) == ([], [b"before", b"x" * 1000])
        send(b"after")
        assert producer.flush(20) == 0
        admin.create_topics([ConfluentTopic("other", 1, 1)])["other"].result(10)
    with BrokerThread(tmp_path / "data", verify="all") as thread:
        assert [end for log_ends in ends(thread._broker).values() for end in log_ends] in ([0, 3], [3, 0])


def test_a_broker_process_that_cannot_start_reports_the_reason(tmp_path):
    with BrokerProcess(tmp_path) as first:
        second = BrokerProcess(tmp_path)
        with pytest.raises(BrokerError, match=f"in use by the broker with process id {first.pid} at {first.address}"):
            second.start()
        third = BrokerProcess(tmp_path / "other", port=first.port)
        with pytest.raises(BrokerError, match=f"port {first.port}"):
            third.start()


def test_the_command_prints_one_line_and_exits_with_1(tmp_path):
    with BrokerProcess(tmp_path):
        run = subprocess.run(
            [sys.executable, "-m", "astrocyte.pipeline.broker", "--data", str(tmp_path), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("error: the data folder")


def test_a_broker_process_ends_with_its_parent(tmp_path):
    script = (
        "import sys, os, signal; from astrocyte.pipeline.broker import BrokerProcess\n"
        f"broker = BrokerProcess({str(tmp_path)!r}).start(); print(broker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    pid = int(run.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_a_stopped_process_starts_again_on_its_port(tmp_path):
    broker = BrokerProcess(tmp_path).start()
    port = broker.port
    assert broker.stop() == 0
    broker.start()
    assert broker.port == port
    assert broker.kill() == -9
    assert broker.start().port == port
    assert broker.stop() == 0
    assert broker.stop() is None
