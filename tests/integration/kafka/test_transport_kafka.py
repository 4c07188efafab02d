"""The transport with workers in separate processes, on the embedded broker and on a real Kafka."""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from astrocyte.pipeline.kafka.client import ensure_topics
from astrocyte.pipeline.transport.producer import ConfirmedProducer
from astrocyte.pipeline.transport.producer_record import ProducerRecord, producer_settings
from tests.support.brokers import Broker, read_all
from tests.support.kafka import Kafka
from tests.support.waiting import wait_until
from tests.support.worker import Worker

Start = Callable[..., Worker]


@dataclass
class Topic:
    """A topic and a group that no other test uses."""

    address: str
    name: str
    group: str

    def worker_options(self, **more: object) -> dict[str, object]:
        return {"broker": self.address, "topics": self.name, "group": self.group} | more

    def committed(self, partition: int = 0) -> int | None:
        async def ask() -> int | None:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.address, group_id=self.group, enable_auto_commit=False)
            await consumer.start()
            try:
                return await consumer.committed(TopicPartition(self.name, partition))
            finally:
                await consumer.stop()

        return asyncio.run(ask())

    def commit(self, offset: int, partition: int = 0) -> None:
        async def do() -> None:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.address, group_id=self.group, enable_auto_commit=False)
            await consumer.start()
            place = TopicPartition(self.name, partition)
            consumer.assign([place])
            await consumer.commit({place: OffsetAndMetadata(offset, "")})
            await consumer.stop()

        asyncio.run(do())

    def produce(self, count: int, partition: int = 0, **options: object) -> None:
        async def do() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.address, linger_ms=5, **options)
            await producer.start()
            if "transactional_id" in options:
                await producer.begin_transaction()
            waiting = [await producer.send(self.name, b"%d" % n, partition=partition) for n in range(count)]
            await asyncio.gather(*waiting)
            if "transactional_id" in options:
                await producer.commit_transaction()
            await producer.stop()

        asyncio.run(do())

    def wait_committed(self, offset: int, partition: int = 0) -> None:
        wait_until(lambda: self.committed(partition) == offset, 15, f"the commit of {offset}")


def topic_of(address: str, partitions: int = 1) -> Topic:
    name = f"mono.t{uuid.uuid4().hex[:8]}"
    asyncio.run(ensure_topics(address, {name: partitions}))
    return Topic(address, name, f"g-{name}")


def test_new_group_that_held_its_first_message_reads_all_of_them_again_after_kill_9(address, start_worker: Start):
    topic = topic_of(address)
    topic.produce(20)
    first = start_worker(**topic.worker_options(max_poll=1, hold=0))
    first.wait_offsets(list(range(20)))
    first.wait(lambda: first.events("held"))
    first.kill()
    assert topic.committed() is None
    second = start_worker(**topic.worker_options(max_poll=1))
    second.wait_offsets(list(range(20)))
    topic.wait_committed(20)


def test_message_held_right_after_the_commit_is_read_again_after_kill_9(address, start_worker: Start):
    topic = topic_of(address)
    topic.produce(20)
    topic.commit(10)
    first = start_worker(**topic.worker_options(max_poll=1, hold=10))
    first.wait_offsets(list(range(10, 20)))
    first.kill()
    assert topic.committed() == 10
    second = start_worker(**topic.worker_options(max_poll=1))
    second.wait_offsets(list(range(10, 20)))
    topic.wait_committed(20)


def test_rebalance_reads_nothing_again_that_was_acknowledged_and_joins_partitions_by_number(address, start_worker):
    one, two = topic_of(address, partitions=3), topic_of(address, partitions=3)
    topics = f"{one.name},{two.name}"
    for partition in range(3):
        one.produce(10, partition)
        two.produce(10, partition)
    first = start_worker(**one.worker_options(topics=topics, commit_interval=60))
    first.wait(lambda: sum(len(event["offsets"]) for event in first.events("chunk")) == 60)
    second = start_worker(**one.worker_options(topics=topics, commit_interval=60))
    second.wait(lambda: second.events("assigned"))
    first.wait(lambda: len(first.events("assigned")) >= 2)
    mine = {name: set() for name in (one.name, two.name)}
    for name, partition, committed in second.events("assigned")[-1]["committed"]:
        assert committed == 10
        mine[name].add(partition)
    theirs = {name: set() for name in mine}
    for name, partition, _ in first.events("assigned")[-1]["committed"]:
        theirs[name].add(partition)
    assert mine[one.name] == mine[two.name]
    assert theirs[one.name] == theirs[two.name]
    assert mine[one.name] | theirs[one.name] == {0, 1, 2}
    assert not mine[one.name] & theirs[one.name]
    one.produce(1, 0)
    one.produce(1, 1)
    wait_until(lambda: 10 in first.offsets(0) + second.offsets(0) and 10 in first.offsets(1) + second.offsets(1))
    assert not [event for event in second.events("chunk") if min(event["offsets"]) < 10]


def test_sigterm_with_held_chunks_ends_at_once_and_commits_what_came_before_them(address, start_worker: Start):
    topic = topic_of(address)
    topic.produce(10)
    worker = start_worker(**topic.worker_options(max_poll=1, hold="5,7", commit_interval=60))
    worker.wait_offsets(list(range(10)))
    assert worker.terminate(8) == 0
    assert topic.committed() == 5


def test_acknowledgements_during_a_revocation_are_committed(embedded_address, start_worker: Start):
    topic = topic_of(embedded_address)
    topic.produce(10)
    worker = start_worker(**topic.worker_options(max_poll=1, hold=3, commit_interval=60, ack_at_revocation=1))
    worker.wait_offsets(list(range(10)))
    assert worker.terminate(8) == 0
    assert worker.events("revoked")[-1]["partitions"] == [[topic.name, 0]]
    assert topic.committed() == 10


def test_application_chooses_where_reading_starts(embedded_address, start_worker: Start):
    topic = topic_of(embedded_address)
    topic.produce(10)
    topic.commit(8)
    worker = start_worker(**topic.worker_options(seek=4))
    worker.wait_offsets(list(range(4, 10)))
    topic.wait_committed(10)


def test_readers_of_decoded_values_get_one_message_a_record(embedded_address, start_worker: Start):
    topic = topic_of(embedded_address)
    topic.produce(5)
    worker = start_worker(**topic.worker_options(serializer="json"))
    worker.wait(lambda: len(worker.events("record")) == 5)
    assert [event["offset"] for event in worker.events("record")] == list(range(5))
    topic.wait_committed(5)


def test_paused_partition_is_delivered_once_it_is_resumed(embedded_address, start_worker: Start):
    topic = topic_of(embedded_address, partitions=2)
    topic.produce(3, 0)
    topic.produce(3, 1)
    worker = start_worker(**topic.worker_options(max_poll=1, take_turns=1))
    worker.wait(lambda: len(worker.events("chunk")) == 6)
    turns = [event["partition"] for event in worker.events("chunk")]
    assert turns in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0])
    topic.wait_committed(3, 0)


def test_failing_agent_ends_the_worker_and_its_message_is_read_again(embedded_address, start_worker: Start):
    topic = topic_of(embedded_address)
    topic.produce(10)
    worker = start_worker(**topic.worker_options(max_poll=1, fail_at=4))
    assert worker.ended() != 0
    assert "the agent of the test fails" in worker.text()
    again = start_worker(**topic.worker_options(max_poll=1))
    again.wait(lambda: 9 in again.offsets())
    assert again.offsets()[0] <= 4
    topic.wait_committed(10)


def test_worker_ends_soon_when_asked_to_while_the_broker_is_unavailable(own_embedded: Broker, start_worker: Start):
    topic = topic_of(own_embedded.address)
    topic.produce(10)
    worker = start_worker(**topic.worker_options(max_poll=1, commit_interval=60))
    worker.wait_offsets(list(range(10)))
    own_embedded.kill()
    worker.wait(lambda: "the group coordinator does not answer" in worker.text())
    worker.terminate(10)


def test_worker_that_waits_for_its_first_broker_ends_when_asked_to(own_embedded: Broker, start_worker: Start):
    own_embedded.kill()
    worker = start_worker(broker=own_embedded.address, topics="mono.none", group="none")
    worker.wait(lambda: "is unavailable" in worker.text())
    worker.terminate(10)


@pytest.mark.kafka
def test_commit_passes_the_markers_of_transactions(real_kafka: Kafka, start_worker: Start):
    topic = topic_of(real_kafka.address)
    topic.produce(3, transactional_id=f"tx-{topic.name}")
    topic.produce(2, transactional_id=f"tx-{topic.name}")
    worker = start_worker(**topic.worker_options(max_poll=1, hold=4))
    worker.wait_offsets([0, 1, 2, 4, 5])  # 3 and 6 are markers
    topic.wait_committed(4)
    worker.kill()
    again = start_worker(**topic.worker_options())
    again.wait_offsets([4, 5])
    topic.wait_committed(7)


def test_broker_that_is_unavailable_at_the_start_and_killed_later_loses_nothing(
    own_broker: Broker, start_worker: Start
):
    topic, copies = topic_of(own_broker.address), topic_of(own_broker.address)
    topic.produce(5)
    own_broker.kill()
    worker = start_worker(**topic.worker_options(copy_to=copies.name))
    worker.wait(lambda: "is unavailable" in worker.text())
    own_broker.start()
    worker.wait_offsets(list(range(5)))
    topic.wait_committed(5)
    own_broker.kill()
    worker.wait(lambda: "the group coordinator does not answer" in worker.text())
    own_broker.start()
    topic.produce(5)
    worker.wait(lambda: worker.offsets()[-1] == 9)
    topic.wait_committed(10)
    assert set(worker.offsets()) == set(range(10))
    copied = [record.value for record in read_all(own_broker.address, copies.name)[0]]
    assert set(copied) == {b"%d" % n for n in range(5)} | {b"sent"}
    assert worker.text().count("is unavailable") <= 5
    assert worker.terminate() == 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_every_record_is_copied_though_workers_and_broker_are_killed_at_random(own_broker: Broker, start_worker, seed):
    chance = random.Random(seed)
    topic, copies = topic_of(own_broker.address, partitions=2), topic_of(own_broker.address, partitions=2)
    count = 4000

    async def produce() -> None:
        producer = ConfirmedProducer(producer_settings(own_broker.address))
        await producer.start()
        for begin in range(0, count, 100):
            rows = range(begin, begin + 100)
            await producer.deliver([ProducerRecord(topic.name, b"%d" % n, partition=n % 2) for n in rows])
            await asyncio.sleep(chance.uniform(0.0, 0.3))
        await producer.stop()

    producing = threading.Thread(target=lambda: asyncio.run(produce()))
    producing.start()
    workers = [start_worker(**topic.worker_options(copy_to=copies.name, max_poll=50)) for _ in range(2)]
    for _ in range(8):
        threading.Event().wait(chance.uniform(0.2, 3.0))
        what = chance.randrange(4)
        if what == 0:
            own_broker.kill()
            threading.Event().wait(chance.uniform(0.0, 1.0))
            own_broker.start()
        elif what == 1:
            workers[0].process.terminate()
        else:
            workers[0].kill()
        if what:
            workers = [*workers[1:], start_worker(**topic.worker_options(copy_to=copies.name, max_poll=50))]
    producing.join(120)
    for partition in range(2):
        topic.wait_committed(count // 2, partition)
    found = read_all(own_broker.address, copies.name)
    copied = {record.value for records in found.values() for record in records}
    assert copied == {b"%d" % number for number in range(count)} | {b"sent"}
