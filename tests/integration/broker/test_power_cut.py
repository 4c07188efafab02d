"""A power failure: what was acknowledged is there after it, and no reader has seen what is not.

The disk is a double (`tests.support.disk`).
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.support.broker import EmbeddedBroker, make_batch, records_from
from tests.support.disk import Disk
from tests.support.waiting import eventually

TOPIC, PARTITIONS = "t", 3


@pytest.fixture
def power(monkeypatch) -> Disk:
    double = Disk()
    double.install(monkeypatch)
    return double


async def send(address: str, acknowledged: set[bytes], stop: asyncio.Event) -> None:
    """Records of one producer, several at a time, until asked to stop."""
    async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True) as producer:
        number = 0
        while not stop.is_set():
            sent = {}
            for _ in range(7):
                value = b"%d" % number * 20
                sent[value] = await producer.send(TOPIC, value, partition=number % PARTITIONS)
                number += 1
            for value, result in sent.items():
                await result
                acknowledged.add(value)


async def read(address: str, seen: dict[tuple[int, int], bytes], stop: asyncio.Event) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)])
    async with consumer:
        while not stop.is_set():
            for place, records in (await consumer.getmany(timeout_ms=50)).items():
                seen |= {(place.partition, record.offset): record.value for record in records}


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_acknowledged_or_read_is_there_after_a_power_failure(tmp_path, power, seed):
    dice = random.Random(seed)
    acknowledged: set[bytes] = set()
    seen: dict[tuple[int, int], bytes] = {}
    stop = asyncio.Event()
    async with EmbeddedBroker(tmp_path / "data", port=0, segment_bytes=2000) as broker:
        broker.topics.create(TOPIC, PARTITIONS)
        tasks = [
            asyncio.create_task(send(broker.address, acknowledged, stop)),
            asyncio.create_task(read(broker.address, seen, stop)),
        ]
        enough = dice.randint(1, 300)
        await eventually(lambda: len(acknowledged) >= enough and seen, what="acknowledged records")
        # The loop of the broker does nothing meanwhile.
        known, read_before = set(acknowledged), dict(seen)
        power.after_power_cut(tmp_path / "data", tmp_path / "image", dice)
        stop.set()
        await asyncio.gather(*tasks)
    async with EmbeddedBroker(tmp_path / "image", port=0) as again:
        found = {
            (partition, offset): raw
            for partition, each in enumerate(again.topics.get(TOPIC).logs)
            for offset, _, raw in records_from(each)
        }
    stored = list(found.values())
    assert [value for value in known if not any(value in raw for raw in stored)] == []
    assert [place for place, value in read_before.items() if value not in found.get(place, b"")] == []


async def test_records_that_the_disk_does_not_take_are_not_acknowledged_and_not_read(tmp_path, power, caplog):
    async with EmbeddedBroker(tmp_path, port=0, flush_interval_s=0.05) as broker:
        log_ = broker.topics.create(TOPIC, 1).logs[0]
        power.fails = True
        producer = AIOKafkaProducer(bootstrap_servers=broker.address, enable_idempotence=True, retry_backoff_ms=20)
        async with producer:
            sent = await producer.send(TOPIC, b"value", partition=0)
            await eventually(lambda: log_.sync_error is not None, what="the failure")
            assert (log_.end_offset, log_.stable_offset) == (1, 0)
            assert len(log_.read(0, 1000)) == 0
            assert not sent.done()
            power.fails = False
            assert (await asyncio.wait_for(sent, 30)).offset == 0
        assert (log_.end_offset, log_.stable_offset) == (1, 1)
        assert len(records_from(log_)) == 1
    assert "records cannot be stored" in caplog.text
    assert "records can be stored again" in caplog.text


async def test_a_commit_beyond_the_end_of_a_log_that_lost_records_is_moved_back_and_said(tmp_path, caplog):
    place = TopicPartition(TOPIC, 0)
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        each = broker.topics.create(TOPIC, 1).logs[0]
        for number in range(5):
            each.append(make_batch([b"%d" % number]))
        await broker.maintenance.flush()
        await commit(broker.address, place, 5)
    (file,) = (tmp_path / "topics" / TOPIC / "0").glob("*.log")
    os.truncate(file, file.stat().st_size - 10)
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        broker.topics.get(TOPIC).logs[0].append(make_batch([b"new"]))
        await broker.maintenance.flush()
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False)
        consumer.assign([place])
        async with consumer:
            assert (await asyncio.wait_for(consumer.getone(), 30)).value == b"new"
    assert "group g had read t[0] up to offset 5 and the log ends at 4: records were lost" in caplog.text


async def commit(address: str, place: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, group_id="g", enable_auto_commit=False)
    consumer.assign([place])
    async with consumer:
        await consumer.commit({place: offset})
