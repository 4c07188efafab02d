"""The lag of a group counts what it has still to read, also where it has committed nothing yet."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.health import group_lag
from tests.support.logs import produce, running


def messages(topic: str, partition: int, count: int) -> list[ConsumedRecord]:
    return [ConsumedRecord(topic, partition, 0, 1_000, b"k", b"v") for _ in range(count)]


def consumer(address: str, group: str | None = "g", *topics: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        *topics, bootstrap_servers=address, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
    )


async def commit(address: str, offsets: dict[TopicPartition, int]) -> None:
    client = consumer(address)
    client.assign(list(offsets))
    await client.start()
    await client.commit({place: OffsetAndMetadata(offset, "") for place, offset in offsets.items()})
    await client.stop()


def test_partitions_without_a_commit_are_lag_from_their_beginning(tmp_path):
    async def lags(address: str) -> list[int | None]:
        await produce(address, [each for number in range(4) for each in messages("a", number, 10)], partitions=4)
        await produce(address, messages("b", 0, 7) + messages("b", 1, 2))
        found = [await group_lag(address, "g")]
        await commit(address, {TopicPartition("a", 0): 5})
        found.append(await group_lag(address, "g"))
        await commit(address, {TopicPartition("a", number): 10 for number in range(4)})
        found.append(await group_lag(address, "g"))
        member = consumer(address, "g", "a", "b")
        await member.start()
        found.append(await group_lag(address, "g"))
        await member.stop()
        return found

    with running(tmp_path / "data") as address:
        assert asyncio.run(lags(address)) == [None, 35, 0, 9]
