"""kill -9 of the broker under load: no acknowledged record is lost, none is stored twice, groups continue."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer

from astrocyte.pipeline.broker import BrokerProcess, BrokerThread
from astrocyte.pipeline.broker.protocol.batch import HEADER_BYTES, read_header, records_of
from tests.support.waiting import wait_until

TOPIC, PARTITIONS = "load", 4


class Load:
    """Producers of both clients and a consumer group, each on a thread, until `stop` is set."""

    def __init__(self, address):
        self.address = address
        self.acknowledged: list[bytes] = []
        self.failed: list[object] = []
        self.read: Counter[tuple[int, int]] = Counter()
        self.assignments = 0
        self._stop, self._stop_reading = threading.Event(), threading.Event()
        self._producers = [threading.Thread(target=work) for work in (self._librdkafka, self._aiokafka)]
        self._reader = threading.Thread(target=self._consume)
        for thread in (*self._producers, self._reader):
            thread.start()

    def stop_writing(self):
        self._stop.set()
        for thread in self._producers:
            thread.join(60)
            assert not thread.is_alive()

    def stop_reading(self):
        self._stop_reading.set()
        self._reader.join(60)

    def _librdkafka(self):
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "enable.idempotence": True,
                "linger.ms": 1,
                "compression.type": "lz4",
                "message.timeout.ms": 120_000,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 20,
                "log_level": 0,
            }
        )

        def delivered(error, message):
            if error is None:
                self.acknowledged.append(message.value())
            else:
                self.failed.append(error)

        for i in range(1 << 30):
            if self._stop.is_set():
                break
            while len(producer) > 200:
                producer.poll(0.01)
            producer.produce(TOPIC, b"r%d" % i, on_delivery=delivered)
            producer.poll(0)
        assert producer.flush(60) == 0

    def _aiokafka(self):
        async def produce():
            async with AIOKafkaProducer(
                bootstrap_servers=self.address,
                enable_idempotence=True,
                linger_ms=1,
                compression_type="gzip",
                retry_backoff_ms=20,
                request_timeout_ms=20_000,
            ) as producer:
                for i in range(1 << 30):
                    if self._stop.is_set():
                        break
                    values = [b"a%d-%d" % (i, j) for j in range(20)]
                    sent = [await producer.send(TOPIC, value) for value in values]
                    for value, result in zip(values, await asyncio.gather(*sent, return_exceptions=True), strict=True):
                        if isinstance(result, BaseException):
                            self.failed.append(result)
                        else:
                            self.acknowledged.append(value)

        asyncio.run(produce())

    def _consume(self):
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "readers",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )

        def assigned(_consumer, _partitions):
            self.assignments += 1

        consumer.subscribe([TOPIC], on_assign=assigned)
        while not self._stop_reading.is_set():
            messages = [message for message in consumer.consume(500, 0.05) if message.error() is None]
            self.read.update((message.partition(), message.offset()) for message in messages)
            if messages:
                consumer.commit(asynchronous=True)
        consumer.close()


def stored(folder):
    """Every stored value, in the order of each partition; CRCs and offsets are checked on the way."""
    values = []
    with BrokerThread(folder, verify="all") as thread:
        for log in thread._broker.topics.get(TOPIC).logs:
            offset = 0
            while offset < log.end_offset:
                data, at = log.read(offset, 1 << 20), 0
                while at + HEADER_BYTES <= len(data):
                    header = read_header(data, at)
                    if at + header.size > len(data):
                        break
                    assert header.base_offset == offset
                    values += [record.value for record in records_of(header, data[at : at + header.size])]
                    offset, at = header.next_offset, at + header.size
    return values


def run(folder, rng, kills, records_between):
    broker = BrokerProcess(folder, default_partitions=PARTITIONS, segment_bytes=200_000, flush_interval_s=0.05).start()
    load = Load(broker.address)
    try:
        for _ in range(kills):
            enough = len(load.acknowledged) + rng.randrange(records_between)
            wait_until(
                lambda enough=enough: len(load.acknowledged) > enough,
                timeout_s=60,
                what="acknowledged records",
            )
            broker.kill()
            for partition in range(PARTITIONS):
                newest = max((folder / "topics" / TOPIC / str(partition)).glob("*.log"))
                with newest.open("ab") as file:
                    file.write(os.urandom(rng.randrange(300)))
            broker.start()
        before = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > before + 100, timeout_s=60, what="records after the last kill")
        load.stop_writing()
        wait_until(lambda: len(load.read) >= len(load.acknowledged), timeout_s=60, what="the reader at the end")
    finally:
        load._stop.set()
        load.stop_reading()
        broker.stop()
    assert load.failed == []
    values = stored(folder)
    assert set(load.acknowledged) - set(values) == set(), "lost"
    assert len(values) == len(set(values)), "stored twice"
    assert len(values) == len(load.acknowledged)
    assert load.assignments == 1, "the group went on without a rebalance"
    return len(values), sum(count - 1 for count in load.read.values())


def test_nothing_acknowledged_is_lost_or_stored_twice_over_kills_under_load(tmp_path):
    total, _ = run(tmp_path / "data", random.Random(3), kills=3, records_between=3000)
    assert total > 1000


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_or_stored_twice_over_many_kills_under_load(tmp_path):
    for seed in range(5):
        total, read_again = run(tmp_path / str(seed), random.Random(seed), kills=15, records_between=5000)
        print(f"{total} records, {read_again} read again")
