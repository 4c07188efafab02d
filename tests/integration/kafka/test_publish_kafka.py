"""Producing with confirmation and publishing frames, on the embedded broker and on a real Kafka."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from itertools import chain

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from astrocyte.pipeline.kafka.client import ensure_topics
from astrocyte.pipeline.kafka.closing import discard
from astrocyte.pipeline.simulation.publish import KafkaSink, PublishFailed
from astrocyte.pipeline.transport.producer import ConfirmedProducer
from astrocyte.pipeline.transport.producer_record import DeliveryFailed, ProducerRecord, producer_settings
from astrocyte.schemas.frames import Frame, decode_frame
from astrocyte.schemas.partitioning import partition_of
from tests.support.brokers import Broker, pause, read_all, resume
from tests.support.kafka import Kafka
from tests.support.waiting import eventually, loop_turns, wait_until


async def new_topic(address: str, partitions: int = 1, **config: str) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    await ensure_topics(
        address, {name: partitions}, config={name: {key.replace("_", "."): config[key] for key in config}}
    )
    return name


def values(records: Mapping[int, list], partition: int = 0) -> list[bytes]:
    return [record.value for record in records[partition]]


async def test_delivered_records_are_in_order_in_the_partitions_of_their_keys(address: str):
    topic = await new_topic(address, 4)
    producer = ConfirmedProducer(producer_settings(address))
    await producer.start()
    await producer.deliver(
        ProducerRecord(topic, b"%d" % n, b"k%d" % (n % 13), headers=[("h", b"x")]) for n in range(20_000)
    )
    assert producer.unconfirmed == 0
    await producer.stop()
    found = await asyncio.to_thread(read_all, address, topic)
    assert sum(len(records) for records in found.values()) == 20_000
    for partition, records in found.items():
        assert {partition_of(record.key, 4) for record in records} <= {partition}
        numbers = [int(record.value) for record in records]
        assert numbers == sorted(numbers)
        assert all(record.headers == (("h", b"x"),) for record in records)


async def test_refused_record_fails_alone_and_the_producer_continues(address: str):
    topic = await new_topic(address, max_message_bytes="3000")
    producer = ConfirmedProducer(producer_settings(address))
    await producer.start()
    with pytest.raises(DeliveryFailed, match=r"max\.message\.bytes"):
        await producer.deliver([ProducerRecord(topic, b"x" * 5000, partition=0)])
    # Together too large, each small enough: they arrive one by one.
    await producer.deliver([ProducerRecord(topic, b"%4d" % n * 200, partition=0) for n in range(8)])
    with pytest.raises(DeliveryFailed):
        await producer.deliver(
            [ProducerRecord(topic, b"first", partition=0), ProducerRecord(topic, b"y" * 4000, partition=0)]
        )
    await producer.deliver([ProducerRecord(topic, b"last", partition=0)])
    await producer.stop()
    found = values(await asyncio.to_thread(read_all, address, topic))
    assert [value[:4] for value in found] == [b"%4d" % n for n in range(8)] + [b"firs", b"last"]


@pytest.mark.kafka
async def test_record_without_key_for_a_compacted_topic_is_refused_and_delays_no_other(real_kafka: Kafka):
    topic = await new_topic(real_kafka.address, cleanup_policy="compact")
    producer = ConfirmedProducer(producer_settings(real_kafka.address))
    await producer.start()
    with pytest.raises(DeliveryFailed):
        await producer.deliver([ProducerRecord(topic, b"x", partition=0)])
    await producer.deliver([ProducerRecord(topic, b"y", b"key", partition=0)])
    await producer.stop()
    assert values(await asyncio.to_thread(read_all, real_kafka.address, topic)) == [b"y"]


async def test_who_waits_for_a_topic_learns_that_the_producer_was_replaced(embedded_address: str):
    producer = AIOKafkaProducer(**producer_settings(embedded_address))
    await producer.start()
    asking = asyncio.create_task(producer.partitions_for("is-not-there"))
    await loop_turns(3)
    await discard(producer)
    with pytest.raises(KafkaError, match="closed"):
        await asyncio.wait_for(asking, 10)


@pytest.mark.kafka
async def test_records_that_a_wrong_clock_makes_the_broker_refuse_are_sent_once_it_is_right(
    real_kafka: Kafka, caplog, monkeypatch
):
    topic = await new_topic(real_kafka.address)
    producer = ConfirmedProducer(producer_settings(real_kafka.address))
    await producer.start()
    real_ns = time.time_ns
    with monkeypatch.context() as wrong, caplog.at_level(logging.WARNING, "astrocyte.broker_state"):
        wrong.setattr(time, "time_ns", lambda: real_ns() + 7_200 * 10**9)
        wrong.setattr(time, "time", lambda: time.time_ns() / 1e9)
        both = [ProducerRecord(topic, b"%d" % n, partition=0) for n in range(2)]
        sending = [asyncio.create_task(producer.deliver(each)) for each in ([both[0]], both)]
        await eventually(lambda: "clock may be wrong" in caplog.text)
    await asyncio.wait_for(asyncio.gather(*sending), 30)
    assert caplog.text.count("is unavailable") == 1
    with pytest.raises(DeliveryFailed, match="InvalidTimestamp"):
        await producer.deliver([ProducerRecord(topic, b"of its own time", partition=0, timestamp_ms=4 * 10**12)])
    await producer.stop()
    assert values(await asyncio.to_thread(read_all, real_kafka.address, topic)) == [b"0", b"0", b"1"]


async def test_nothing_is_lost_or_doubled_when_the_broker_is_killed_under_load(own_broker: Broker, caplog):
    topic = await new_topic(own_broker.address, 2)
    producer = ConfirmedProducer(producer_settings(own_broker.address))
    await producer.start()
    futures = []
    for n in range(3000):
        futures.append(await producer.send(ProducerRecord(topic, b"%d" % n, partition=n % 2)))
        if n == 1000:
            await asyncio.wait(futures[:500])
            own_broker.kill()
    with caplog.at_level(logging.WARNING, "astrocyte.broker_state"):
        wait_task = asyncio.gather(*futures)
        await eventually(lambda: "is unavailable" in caplog.text)
        await asyncio.to_thread(own_broker.start)
        await asyncio.wait_for(wait_task, 60)
        await eventually(lambda: "is available again after" in caplog.text)
    assert caplog.text.count("is unavailable") == 1
    await producer.stop()
    found = await asyncio.to_thread(read_all, own_broker.address, topic)
    assert values(found, 0) == [b"%d" % n for n in range(0, 3000, 2)]
    assert values(found, 1) == [b"%d" % n for n in range(1, 3000, 2)]


async def test_producer_starts_once_the_broker_is_available(own_embedded: Broker, caplog):
    topic = await new_topic(own_embedded.address)
    own_embedded.kill()
    producer = ConfirmedProducer(producer_settings(own_embedded.address))
    starting = asyncio.create_task(producer.start())
    sending = asyncio.create_task(producer.deliver([ProducerRecord(topic, b"early", partition=0)]))
    with caplog.at_level(logging.WARNING, "astrocyte.broker_state"):
        await eventually(lambda: "is unavailable" in caplog.text)
    assert not starting.done()
    assert not sending.done()
    await asyncio.to_thread(own_embedded.start)
    await asyncio.wait_for(sending, 30)
    await producer.stop()
    assert values(await asyncio.to_thread(read_all, own_embedded.address, topic)) == [b"early"]


async def test_producer_that_is_closed_while_the_broker_is_unavailable_reports_what_is_lost(own_embedded: Broker):
    topic = await new_topic(own_embedded.address)
    producer = ConfirmedProducer(producer_settings(own_embedded.address))
    await producer.start()
    await producer.deliver([ProducerRecord(topic, b"a", partition=0)])
    own_embedded.kill()
    future = await producer.send(ProducerRecord(topic, b"b", partition=0))
    assert await producer.stop(0.2) == 1
    with pytest.raises(DeliveryFailed, match="closed before"):
        await future


def frames(count: int, rows: int = 500, stream: str | None = None) -> list[Frame]:
    stream = stream or f"s{uuid.uuid4().hex[:8]}"
    return [
        Frame.from_columns(
            stream,
            "run",
            {
                "timestamp": np.arange(start, start + rows, dtype=np.int64),
                "key": [f"k{row % 11}" for row in range(start, start + rows)],
                "type": ["A"] * rows,
                "value": np.arange(rows, dtype=np.float64),
            },
            first_seq=start,
        )
        for start in range(0, count * rows, rows)
    ]


def sequences(address: str, stream: str) -> dict[int, list[int]]:
    found = read_all(address, f"mono.{stream}")
    return {
        partition: [number for record in records for number in decode_frame(record.value).sequences().tolist()]
        for partition, records in found.items()
    }


def test_published_frames_arrive_whole_and_in_order(address: str):
    sent = frames(40)
    with KafkaSink(address, partitions=3) as sink:
        for frame in sent:
            sink.write(frame)
        sink.flush()
        assert sink.events_confirmed == sink.events_written == 20_000
        assert sink.pending_bytes == 0
    found = sequences(address, sent[0].stream)
    assert len(found) == 3
    assert sorted(chain(*found.values())) == list(range(20_000))
    assert all(numbers == sorted(numbers) for numbers in found.values())


def test_published_json_is_one_message_an_event(address: str):
    sent = frames(2)
    with KafkaSink(address, partitions=2, form="json") as sink:
        for frame in sent:
            sink.write(frame)
    found = read_all(address, f"mono.{sent[0].stream}")
    assert sum(len(records) for records in found.values()) == 1000
    assert {record.key for records in found.values() for record in records} == {b"k%d" % n for n in range(11)}


def test_a_topic_that_exists_keeps_its_number_of_partitions(address: str):
    frame = frames(1)[0]
    topic = f"mono.{frame.stream}"
    asyncio.run(ensure_topics(address, {topic: 3}))
    with KafkaSink(address, partitions=2) as sink:
        sink.write(frame)
    found = read_all(address, topic)
    assert len(found) == 3
    for number, records in found.items():
        keys = {key for record in records for key in decode_frame(record.value).column("key").to_pylist()}
        assert keys
        assert {partition_of(key, 3) for key in keys} == {number}


def test_message_that_the_broker_refuses_stops_the_publishing(address: str):
    frame = frames(1)[0]
    sink = KafkaSink(address, partitions=1, topic_config={"max.message.bytes": "500"})
    sink.write(frame)
    with pytest.raises(PublishFailed, match=r"max\.message\.bytes"):
        sink.flush()
    with pytest.raises(PublishFailed):
        sink.write(frame)
    assert sink.abandon() == 500


def test_publisher_survives_a_broker_that_is_unavailable_first_and_killed_later(own_broker: Broker, caplog):
    sent = frames(200)
    stream = sent[0].stream
    own_broker.kill()
    sink = KafkaSink(own_broker.address, partitions=2)

    def write() -> None:
        for frame in sent:
            sink.write(frame)

    with caplog.at_level(logging.WARNING, "astrocyte.broker_state"):
        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: "is unavailable" in caplog.text)
        own_broker.start()
        wait_until(lambda: sink.events_confirmed > 0)
        own_broker.kill()
        own_broker.start()
        writer.join(60)
        assert not writer.is_alive()
        sink.close()
    assert caplog.text.count("is unavailable") <= 6
    found = sequences(own_broker.address, stream)
    assert sorted(chain(*found.values())) == list(range(100_000))
    assert all(numbers == sorted(numbers) for numbers in found.values())


def test_writer_waits_while_a_hanging_broker_lets_the_queue_fill(own_embedded: Broker):
    sent = frames(100)
    sink = KafkaSink(own_embedded.address, partitions=1, pending_bytes=100_000)
    sink.write(sent[0])
    sink.flush()
    pause(own_embedded)
    writer = threading.Thread(target=lambda: [sink.write(frame) for frame in sent[1:]])
    writer.start()
    wait_until(lambda: sink.pending_bytes > 80_000)
    writer.join(0.3)
    assert writer.is_alive()
    assert sink.pending_bytes <= 100_000
    resume(own_embedded)
    writer.join(30)
    sink.close()
    assert sequences(own_embedded.address, sent[0].stream) == {0: list(range(50_000))}
    with pytest.raises(PublishFailed, match="closed"):
        sink.write(sent[0])
