"""What domains cost, as a moving average, and what follows: a new assignment, and records of moves."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest

from astrocyte.agents.domain import Domain
from astrocyte.pipeline.roles.correlation.loads import Loads, Rebalancing
from astrocyte.pipeline.transport.balance import Balance, Member, Move
from astrocyte.schemas.json.reader import RawRecord


class World:
    """Domains whose time passes as the test says."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.domains = {0: SimpleNamespace(busy_ns=0), 1: SimpleNamespace(busy_ns=0)}
        self.loads = Loads(lambda: self.domains, lambda: self.now_s)
        self.balance = Balance(self.loads.measured)
        self.asked = 0
        self.records = []
        self.rebalancing = Rebalancing(
            "correlate", self.loads, self.balance, rejoin=self.rejoin, deliver=self.deliver, partitions=2,
            now_us=lambda: 1_700_000_000_000_000,
        )  # fmt: skip

    async def rejoin(self) -> None:
        self.asked += 1

    async def deliver(self, records) -> None:
        self.records += records

    def look(self, *, busy_s: dict[int, float] | None = None) -> None:
        self.now_s += 10.0
        for partition, spent_s in (busy_s or {}).items():
            self.domains[partition].busy_ns += int(spent_s * 1e9)
        asyncio.run(self.rebalancing.look())


def test_loads_are_averages_that_follow_what_domains_cost():
    world = World()
    world.look(busy_s={0: 4.0})
    assert world.loads.measured() == {0: 400_000.0, 1: 0.0}
    world.look()
    after = world.loads.measured()[0]
    assert 100_000 < after < 400_000
    for _ in range(30):
        world.look()
    assert world.loads.measured()[0] < 1_000
    world.domains = {1: SimpleNamespace(busy_ns=5)}
    world.look()
    assert list(world.loads.measured()) == [1]


def test_an_assignment_is_asked_for_when_a_difference_lasts():
    world = World()
    world.balance.member, world.balance.others = Member(1, {0: 0.0, 1: 0.0}), {"other": Member(1, {2: 1_000.0})}
    for expected in (0, 0, 1, 1):
        world.look(busy_s={0: 4.0, 1: 4.0})
        assert world.asked == expected


def test_each_move_to_this_worker_is_written_once():
    world = World()
    world.balance.moves.append(Move(1, "w-1", "w-2", 250_000.0))
    world.look()
    world.look()
    (record,) = world.records
    body = orjson.loads(record.value)
    assert (record.topic, record.key, record.partition) == ("topology", b"correlate/1", 1)
    assert {name: body[name] for name in ("kind", "role", "partition", "from", "to", "load_us", "timestamp")} == {
        "kind": "moved", "role": "correlate", "partition": 1, "from": "w-1", "to": "w-2", "load_us": 250_000.0,
        "timestamp": "2023-11-14T22:13:20Z",
    }  # fmt: skip


def test_a_move_is_kept_until_the_broker_has_its_record():
    world = World()

    async def refuse(_records) -> None:
        raise ConnectionError

    world.balance.moves.append(Move(1, "w-1", "w-2", 1.0))
    world.rebalancing._deliver = refuse
    with pytest.raises(ConnectionError):
        world.look()
    assert len(world.balance.moves) == 1


def test_a_domain_counts_the_time_that_its_input_takes():
    clock = iter(range(0, 1000, 7))
    domain = Domain(0, (), topics=["mono.A"], clock=lambda: next(clock))
    domain.feed("mono.A", [RawRecord(0, 0, b"k", b'{"timestamp": 1}', ())])
    assert domain.busy_ns == 7
    assert Domain(0, (), topics=["mono.A"]).busy_ns == 0
