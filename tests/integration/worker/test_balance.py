"""A group on a broker whose members say what their domains cost: who asks for an assignment, and what moves."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer

from astrocyte.pipeline.kafka.client import ensure_topics
from astrocyte.pipeline.transport.assignor import DomainAssignor
from astrocyte.pipeline.transport.balance import Balance, Move
from tests.support.brokers import own_embedded  # noqa: F401  fixture


class Member:
    """A consumer whose domains cost what ``cost`` says."""

    def __init__(self, broker: str, cost: dict[int, float]) -> None:
        self.balance = Balance(lambda: {each: cost.get(each, 0.0) for each in self.partitions})
        self.consumer = AIOKafkaConsumer(
            "mono.axon_1",
            bootstrap_servers=broker,
            group_id="g-correlate",
            partition_assignment_strategy=[DomainAssignor.with_note("1f", None, self.balance)],
        )

    @property
    def partitions(self) -> list[int]:
        return sorted(place.partition for place in self.consumer.assignment())


async def rebalanced(broker: str) -> None:
    cost: dict[int, float] = {}
    await ensure_topics(broker, {"mono.axon_1": 6})
    members = [Member(broker, cost) for _ in range(2)]

    async def until(done: Any) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.gather(*(each.consumer.getmany(timeout_ms=50) for each in members))

    def held() -> list[list[int]]:
        return [each.partitions for each in members]

    async with AsyncExitStack() as stack:
        for each in members:
            await stack.enter_async_context(each.consumer)
        await until(lambda: sorted(chain(*held())) == list(range(6)) and all(len(each) == 3 for each in held()))
        before, rounds = held(), [each.balance.member.round for each in members]
        assert rounds[0] == rounds[1]
        busy, idle = members
        moved = before[0][:2]
        idle.balance.moves.clear()  # those by which the second member was given something
        cost |= dict.fromkeys(moved, 400_000.0)
        assert not any(idle.balance.wants() for _ in range(10))
        assert [busy.balance.wants() for _ in range(3)] == [False, False, True]
        busy.consumer._coordinator.request_rejoin()
        await until(lambda: all(each.balance.member.round > rounds[0] for each in members))
        await until(lambda: sorted(chain(*held())) == list(range(6)))
        # One of the two that are expensive has gone, and nothing else.
        (gone,) = set(before[0]) - set(busy.partitions)
        assert gone in moved
        assert idle.partitions == sorted([*before[1], gone])
        name = busy.consumer._coordinator.member_id
        assert [move._replace(target="") for move in idle.balance.moves] == [Move(gone, name, "", 400_000.0)]


def test_the_busiest_asks_and_one_domain_moves_over_a_broker(own_embedded: Any) -> None:  # noqa: F811
    asyncio.run(rebalanced(own_embedded.address))
