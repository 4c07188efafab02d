"""What a worker holds of one partition whose domain it has."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from astrocyte.agents.domain import Domain, DomainOutput
from astrocyte.pipeline.roles.correlation.unsettled import Unsettled, has_eventual
from astrocyte.pipeline.roles.idleness import Idleness
from astrocyte.pipeline.roles.output_records import waiting_of
from astrocyte.pipeline.state.snapshot_schedule import SnapshotSchedule
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.topics import CLOCK, TopicPartition

__all__ = ["COUNTS_S", "Partition"]

COUNTS_S: Final = 5.0
"""Time after which counts that have changed are written to `control.stats`, also between snapshots."""
_MOST_UNCONFIRMED: Final = 64 << 20
"""Bytes of output that may await confirmation by the broker; above that, the domain waits."""


@dataclass(slots=True, eq=False)
class Partition:
    """The domain of a partition, what a worker knows of its sources, and what is not confirmed yet."""

    domain: Domain
    sources: Idleness
    schedule: SnapshotSchedule
    number: int = 0
    """Number of the last snapshot."""
    life: str = field(default_factory=lambda: uuid.uuid4().hex)
    decisions: int = 0
    """Number of the last record in `control.clock`; a snapshot has the effect of all up to its own."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """The newest delivery of each topic; acknowledging it covers those before it."""
    unconfirmed: list[tuple[asyncio.Future[Any], int]] = field(default_factory=list)
    assigned: set[TopicPartition] = field(default_factory=set)
    """Topics whose assignment is not recorded yet."""
    restored: bool = True
    """No record says yet where this life of the domain begins."""
    until_us: int | None = None
    """How far event time has come while all topics are idle."""
    recorded_until_us: int | None = None
    wrote_s: float = -math.inf
    """When the broker was last seen to take a record in time."""
    writing: asyncio.Task[None] | None = None
    unproven: bool = False
    """Sources are silent, but the broker has not shown that it takes records."""
    counted_s: float = -math.inf
    """When its counts were last written to `control.stats`."""
    reported_s: float = -math.inf
    """When it was last said again that the domain is silent."""
    unsettled: Unsettled = field(default_factory=Unsettled)
    decided: bool = False
    """Whether what was decided about overload before this life is known (`OverloadControl`)."""
    decided_from: int = 0
    """Offset in `control.sampling` after the last decision that the state contains."""
    decided_by: str = ""
    """The life that made it."""
    dirty: bool = False
    owes: bool = False
    """Work was cut off before all that came of it was handed over: no snapshot may hold this state."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[bool]:
        """Around work that changes the domain and hands over what comes of it, with the lock; yields `owes`."""
        async with self.lock:
            owed, self.owes = self.owes, True
            yield owed
            self.owes = owed

    def clock_record(self, role: str, body: Mapping[str, Any], positions: Mapping[str, int] | None) -> ProducerRecord:
        """The next record of `control.clock`; ``positions`` default to those of now."""
        self.decisions += 1
        self.recorded_until_us = self.until_us
        whole = {
            "role": role,
            "partition": self.domain.partition,
            "life": self.life,
            "number": self.decisions,
            "until_us": self.until_us,
            **body,
            "positions": self.domain.positions if positions is None else positions,
        }
        key = str(self.domain.partition) if role == "correlate" else f"{role}/{self.domain.partition}"
        return ProducerRecord(CLOCK, orjson.dumps(whole), key.encode(), 0)

    def snapshot_figures(self, now_s: float) -> tuple[float, int, float, int]:
        """Age of a last snapshot that lacks something, else 0; number, cost and size of snapshots."""
        schedule = self.schedule
        age_s = now_s - schedule.stored_s if self.dirty else 0.0
        return age_s, schedule.count, schedule.cost_s, schedule.last_bytes

    def emitted_us(self, now_us: int) -> int:
        """From when on the next life has to read what this one puts out; below 0 where none of it is provisional."""
        since_us = self.unsettled.since_us(now_us)
        return since_us if self.unsettled or has_eventual(self.domain) else -since_us

    @property
    def holds_back(self) -> bool:
        """Whether so much output awaits confirmation that the domain waits."""
        return sum(size for future, size in self.unconfirmed if not future.done()) > _MOST_UNCONFIRMED

    def owes_counts(self, now_s: float) -> bool:
        """Whether counts changed that nobody can read yet, and the broker takes them."""
        return self.dirty and now_s - self.counted_s >= COUNTS_S and not (self.unproven or self.holds_back)

    def report_silence(self, now_s: float, idle_s: float, *, stands: bool) -> DomainOutput:
        """What tells receivers of junctions, once and then regularly, that they need not wait for this domain.

        ``stands``: event time does not advance by the clock, so that nothing comes of what waits until events follow.
        """
        again = now_s - self.reported_s >= idle_s
        self.reported_s = now_s if again else self.reported_s
        # Before what waits is left to the next events, topics have time to become idle one after the other.
        idle = self.sources.silent(2 * idle_s if stands and waiting_of(self.domain) else idle_s)
        return self.domain.report_silence(idle, stands=stands, again=again)
