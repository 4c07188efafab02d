"""What the domains of a worker cost, and what follows for their division over the workers of the group."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import orjson

from astrocyte.agents.domain import Domain
from astrocyte.pipeline.transport.balance import Balance, Move
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.cloudevents import OWN_SOURCE
from astrocyte.schemas.json.reader import cloud_headers
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import TOPOLOGY

__all__ = ["Loads", "Rebalancing", "move_record"]

logger = logging.getLogger(__name__)

_MEMORY_S: Final = 30.0
"""Time constant of the moving averages."""


class Loads:
    """Processor time of each domain, as a moving average, in microseconds a second."""

    def __init__(self, domains: Callable[[], Mapping[int, Domain]], monotonic: Callable[[], float]) -> None:
        self._domains_of, self._monotonic = domains, monotonic
        self._looked_s = monotonic()
        self._busy_ns: dict[int, int] = {}
        self._loads: dict[int, float] = {}

    def look(self) -> None:
        """Bring the averages up to date. To be called regularly."""
        now_s, domains = self._monotonic(), self._domains_of()
        passed_s, self._looked_s = max(now_s - self._looked_s, 1e-3), now_s
        before, self._busy_ns = self._busy_ns, {partition: domain.busy_ns for partition, domain in domains.items()}
        kept = math.exp(-passed_s / _MEMORY_S)
        loads: dict[int, float] = {}
        for partition, busy_ns in self._busy_ns.items():
            spent_ns = busy_ns - before.get(partition, 0)
            if spent_ns < 0:
                spent_ns = busy_ns  # another domain since: the partition went and came again
            rate = spent_ns / 1000 / passed_s
            loads[partition] = kept * self._loads.get(partition, rate) + (1 - kept) * rate
        self._loads = loads

    def measured(self) -> dict[int, float]:
        """The averages, of the domains that are here."""
        return dict(self._loads)


class Rebalancing:
    """Asks for another division of the domains where that gains enough, and reports the moves to this worker.

    ``rejoin`` asks the group for an assignment, ``deliver`` writes records to the topic `TOPOLOGY`.
    """

    def __init__(
        self,
        role: str,
        loads: Loads,
        balance: Balance,
        *,
        rejoin: Callable[[], Awaitable[None]],
        deliver: Callable[[Iterable[ProducerRecord]], Awaitable[None]],
        partitions: int,
        now_us: Callable[[], int],
    ) -> None:
        self._role, self._loads, self._balance = role, loads, balance
        self._rejoin, self._deliver = rejoin, deliver
        self._partitions, self._now_us = partitions, now_us

    async def look(self) -> None:
        """To be called regularly, each time for another sample of the loads."""
        self._loads.look()
        moves = [*self._balance.moves]
        if moves:
            now_us = self._now_us()
            await self._deliver([move_record(self._role, move, now_us, self._partitions) for move in moves])
            del self._balance.moves[: len(moves)]
        if self._balance.wants():
            logger.info("role %s: the load of the workers differs: their domains are divided anew", self._role)
            await self._rejoin()


def move_record(role: str, move: Move, now_us: int, partitions: int) -> ProducerRecord:
    """The record of a move in the topic `TOPOLOGY`; its time is that of the wall clock."""
    identity = str(hash_id("moved", role, str(move.partition), move.source, move.target, str(now_us)))
    body = {
        "decision_id": identity,
        "timestamp": iso_from_us(now_us),
        "kind": "moved",
        "role": role,
        "partition": move.partition,
        "from": move.source,
        "to": move.target,
        "load_us": move.load_us,
    }
    headers = cloud_headers(identity, "astrocyte.domain.moved", f"{OWN_SOURCE}{role}", now_us)
    key = f"{role}/{move.partition}".encode()
    return ProducerRecord(TOPOLOGY, orjson.dumps(body), key, move.partition % partitions, headers)
