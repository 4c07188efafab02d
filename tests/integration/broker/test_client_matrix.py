"""Clients x codecs x acks on the embedded broker: each reads what each wrote, and says what was refused."""

from __future__ import annotations

import uuid

import pytest

from astrocyte.pipeline.broker import BrokerThread
from tests.support.broker import CODECS
from tests.support.clients import CLIENTS, Refused, available, make_topic, read, write
from tests.support.kafka import run_tool

PARTITIONS = 3
PAIRS = [(b"key %d" % n, b"value %d" % n) for n in range(40)]
COMPLETE = [(client, codec, acks) for client in CLIENTS for codec in CODECS for acks in ("all", "1", "0")]


def shows_most(client: str, codec: str, acks: str) -> bool:
    """Each codec and each acks of each client once; Kafka's own tools need seconds to start."""
    return (client, codec, acks) == ("java", "zstd", "all") if client == "java" else acks == "all" or codec == "lz4"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with BrokerThread(
        tmp_path_factory.mktemp("broker"), default_partitions=PARTITIONS, initial_rebalance_delay_s=0.0
    ) as broker:
        yield broker.address


@pytest.fixture(scope="module")
def kafka_address(real_kafka):
    return real_kafka.address


@pytest.fixture
def topic():
    return f"topic-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize(
    ("client", "codec", "acks"),
    [pytest.param(*each, marks=[] if shows_most(*each) else pytest.mark.soak) for each in COMPLETE],
)
def test_what_a_client_wrote_it_reads_and_another_too(address, topic, client, codec, acks):
    available(client)
    make_topic(address, topic, PARTITIONS)
    write(client, address, topic, PAIRS, codec=codec, acks=acks)
    others = {client, "aiokafka", "librdkafka"}
    for reader in others:
        assert read(reader, address, topic, PARTITIONS, len(PAIRS)) == sorted(PAIRS), reader


@pytest.mark.soak
@pytest.mark.parametrize("reader", CLIENTS)
@pytest.mark.parametrize("codec", CODECS)
def test_each_client_reads_what_each_has_written(address, topic, reader, codec):
    available(reader)
    make_topic(address, topic, PARTITIONS)
    written = []
    for number, client in enumerate(CLIENTS):
        available(client)
        pairs = [(key, b"%d %s" % (number, value)) for key, value in PAIRS]
        write(client, address, topic, pairs, codec=codec, acks="all")
        written += pairs
    assert read(reader, address, topic, PARTITIONS, len(written)) == sorted(written)


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ("aiokafka", "UnknownError"),  # it has no name for the code
        ("librdkafka", "INVALID_RECORD"),
        ("kcat", "Broker failed to validate record"),
        ("java", "InvalidRecordException"),
    ],
)
@pytest.mark.parametrize("where", ["embedded", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.soak])])
def test_a_compacted_topic_takes_no_record_without_a_key_as_in_kafka(request, topic, client, said, where):
    available(client)
    broker = request.getfixturevalue("address" if where == "embedded" else "kafka_address")
    make_topic(broker, topic, 1, {"cleanup.policy": "compact"})
    with pytest.raises(Refused, match=said):
        write(client, broker, topic, [(None, b"value")], codec="none", acks="all")
    write("librdkafka", broker, topic, [(b"k", b"value")], codec="none", acks="all")
    assert read("librdkafka", broker, topic, 1, 1) == [(b"k", b"value")]


@pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.soak)])
def test_kafkas_own_performance_tools_write_and_read_all_records(address, topic, count):
    available("java")
    make_topic(address, topic, PARTITIONS)
    wrote = run_tool(
        "ProducerPerformance", "--topic", topic, "--num-records", str(count), "--record-size", "100", "--throughput",
        "-1", "--producer-props", f"bootstrap.servers={address}", "acks=all", "compression.type=zstd",
    )  # fmt: skip
    assert f"{count} records sent" in wrote.stdout.decode(), wrote.stderr.decode()
    took = run_tool("ConsumerPerformance", "--bootstrap-server", address, "--topic", topic, "--messages", str(count))
    figures = took.stdout.decode().splitlines()[-1].split(", ")
    assert int(figures[4]) == count, took.stdout.decode() + took.stderr.decode()
