"""The correlate role: domains between Kafka topics, with snapshots that make a restart exact.

A chunk is acknowledged once a durable snapshot contains its effect on the state and every record it caused has been
confirmed. A snapshot also contains the next offset of every topic. After a crash the domain is restored and continues
from these offsets, so only the input since the last snapshot is processed again. Delaying acknowledgements until
windows close would not suffice: which events pair may depend on how earlier, long acknowledged ones were paired.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from astrocyte.agents.domain import Domain, DomainOutput
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.topics import CLOCK, STATS, TopicPartition

__all__ = ["Correlator", "StateStore"]

logger = logging.getLogger(__name__)

FORMAT: Final = 2
"""Version of the content of a snapshot."""
_MOST_UNCONFIRMED: Final = 64 << 20
"""Bytes of output that may await confirmation by the broker; above that, the domain waits."""
_SNAPSHOT_SHARE: Final = 0.1
"""Share of its time that a domain may spend on snapshots; large states are stored less often."""
_STORING_S: Final = 1.0
"""Most that storing a snapshot may count as cost; the rest is time spent waiting for an unavailable broker."""
_LONGEST_PAUSE_S: Final = 60.0
"""Longest time between snapshots, and so between commits, unless the interval is longer."""


class StateStore(Protocol):
    """Where snapshots are kept (`pipeline.state.snapshot_store.KafkaStateStore`)."""

    async def load(self, partition: int) -> tuple[int, bytes] | None:
        """Number and bytes of the newest complete snapshot of a partition."""

    def messages(self, partition: int, number: int, data: bytes) -> list[ProducerRecord]:
        """Records that store a snapshot."""


@dataclass(slots=True, eq=False)
class _Partition:
    domain: Domain
    number: int = 0
    """Number of the last snapshot."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """The newest delivery of each topic; acknowledging it covers those before it."""
    unconfirmed: list[tuple[asyncio.Future[Any], int]] = field(default_factory=list)
    heard_s: dict[TopicPartition, float] = field(default_factory=dict)
    lag: dict[TopicPartition, int] = field(default_factory=dict)
    idle: set[TopicPartition] = field(default_factory=set)
    next_snapshot_s: float = 0.0
    dirty: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Correlator:
    """All domains of one worker. ``make_domain`` builds the empty domain of a partition."""

    def __init__(
        self,
        make_domain: Callable[[int], Domain],
        store: StateStore,
        send_batch: Callable[[str, int, Sequence[ProducerRecord]], Awaitable[Sequence[asyncio.Future[Any]]]],
        deliver: Callable[[Iterable[ProducerRecord]], Awaitable[None]],
        *,
        partitions: int,
        snapshot_interval_us: int,
        idle_timeout_us: int,
        producer_timeout_us: int = 600_000_000,
        fingerprint: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_domain = make_domain
        self._store = store
        self._send_batch = send_batch
        self._deliver = deliver
        self._partitions = partitions
        self._interval_s = snapshot_interval_us / 1e6
        self._idle_s = idle_timeout_us / 1e6
        self._producer_s = producer_timeout_us / 1e6
        self._fingerprint = fingerprint
        self._monotonic = monotonic
        self._domains: dict[int, _Partition] = {}

    @property
    def domains(self) -> dict[int, Domain]:
        """The domain of each partition that this worker has."""
        return {partition: part.domain for partition, part in self._domains.items()}

    async def assigned(self, committed: Mapping[Any, int | None]) -> dict[Any, int]:
        """Restore the domains of newly assigned partitions; returns the offset at which reading of each topic starts.

        A domain that exists already (a topic was added, or reading restarts without a revocation) continues from what
        it has processed.
        """
        starts: dict[Any, int] = {}
        for partition in sorted({tp.partition for tp in committed}):
            part = self._domains.get(partition)
            if part is None:
                part = await self._begin(partition)
            now_s = self._monotonic()
            positions = part.domain.positions
            for tp, offset in committed.items():
                if tp.partition != partition:
                    continue
                part.heard_s[TopicPartition(tp.topic, tp.partition)] = now_s
                # Without a snapshot the state is empty; committed input is not read again.
                start = positions.get(tp.topic, offset)
                if start is not None:
                    starts[tp] = positions[tp.topic] = start
        return starts

    async def _begin(self, partition: int) -> _Partition:
        part = _Partition(self._make_domain(partition), next_snapshot_s=self._monotonic() + self._interval_s)
        loaded = await self._store.load(partition)
        if loaded is not None:
            part.number = loaded[0]
            await self._restore(part, loaded[1])
        self._domains[partition] = part
        return part

    async def _restore(self, part: _Partition, data: bytes) -> None:
        state = await asyncio.to_thread(unpack_state, data)
        if state.get("format") != FORMAT:
            raise AstrocyteError(
                f"partition {part.domain.partition}: expected a snapshot of format {FORMAT}, got "
                f"{state.get('format')}; finish with the version that wrote it, or delete the state topic to start "
                "with an empty state"
            )
        if bytes(state["fingerprint"]).decode() != self._fingerprint:
            logger.warning(
                "partition %s: rules or settings changed since snapshot %s; unchanged rules keep their state",
                part.domain.partition, part.number,
            )  # fmt: skip
        part.domain.restore(state["domain"])
        logger.info("partition %s: restored from snapshot %s", part.domain.partition, part.number)

    async def revoked(self, partitions: Iterable[Any]) -> None:
        """Store a last snapshot of each revoked domain, acknowledge what it covers, and drop the domain."""
        gone = {tp.partition for tp in partitions} & self._domains.keys()
        try:
            await asyncio.gather(*(self._snapshot(self._domains[partition]) for partition in gone))
        finally:
            # Also after a timeout: another worker may have taken over, so this state is no longer valid.
            for partition in gone:
                del self._domains[partition]

    async def handle(self, chunk: Any, delivery: Delivery) -> None:
        """Process one chunk, pass its output to the producer, and wait only if too much is unconfirmed."""
        part = self._domains.get(chunk.partition)
        if part is None:
            return
        async with part.lock:
            if delivery.stale:
                return
            place = TopicPartition(chunk.topic, chunk.partition)
            now_s = self._monotonic()
            if len(part.idle) == len(part.heard_s):
                part.domain.wake()
                part.idle.clear()
                part.heard_s = dict.fromkeys(part.heard_s, now_s)
            part.heard_s[place] = now_s
            part.lag[place] = chunk.highwater - chunk.next_offset
            part.idle.discard(place)
            output = part.domain.feed(chunk.topic, chunk.records)
            part.domain.positions[chunk.topic] = max(part.domain.positions.get(chunk.topic, 0), chunk.next_offset)
            part.deliveries[chunk.topic] = delivery
            part.dirty = True
            await self._send_output(part, output)
        await self._back_pressure(part)

    async def _send_output(self, part: _Partition, output: DomainOutput) -> None:
        if not output:
            return
        for (topic, partition), records in producer_records(output, part.domain.partition, self._partitions).items():
            size = sum(len(record.value or b"") for record in records)
            futures = await self._send_batch(topic, partition, records)
            part.unconfirmed += [(future, size // len(futures)) for future in futures]

    async def _back_pressure(self, part: _Partition) -> None:
        while sum(size for future, size in part.unconfirmed if not future.done()) > _MOST_UNCONFIRMED:
            waiting = [future for future, _ in part.unconfirmed if not future.done()]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for future, _ in part.unconfirmed:
            if future.done():
                future.result()
        part.unconfirmed = [(future, size) for future, size in part.unconfirmed if not future.done()]

    async def update(
        self, rulesets: Mapping[str, RuleSet], fingerprint: str, validators: Validators | None = None
    ) -> None:
        """Apply changed rules, by group, and changed validators to every domain."""
        self._fingerprint = fingerprint
        for part in list(self._domains.values()):
            async with part.lock:
                part.domain.update(rulesets, validators)
                part.dirty = True

    async def stop(self) -> None:
        """Store a last snapshot of every domain and acknowledge what it covers."""
        await asyncio.gather(*(self._snapshot(part) for part in list(self._domains.values())))

    async def tick(self) -> None:
        """Called a few times a second: find idle sources and store snapshots that are due."""
        now_s = self._monotonic()
        for part in list(self._domains.values()):
            await self._find_idle(part, now_s)
        due = [part for part in self._domains.values() if part.dirty and now_s >= part.next_snapshot_s]
        await asyncio.gather(*(self._snapshot(part) for part in due))

    async def _find_idle(self, part: _Partition, now_s: float) -> None:
        silent = self._silent(part, now_s, self._idle_s)
        gone = self._silent(part, now_s, self._producer_s) & part.idle if part.domain.asserting else set()
        fresh = silent - part.idle
        asleep = len(silent) == len(part.heard_s) and part.domain.newest_us is not None
        if not (fresh or gone or (asleep and not part.domain.asserting)):
            return
        async with part.lock:
            part.idle |= fresh
            output = part.domain.mark_idle(sorted(fresh))
            if gone:
                logger.warning(
                    "%s: silent producers no longer delay event time (ASTROCYTE_PRODUCER_TIMEOUT)", sorted(gone)
                )
                output.extend(part.domain.mark_idle(sorted(gone), asserting=True))
            until_us = None
            if asleep and not part.domain.asserting:
                # Event time advances with the wall clock, so that windows close although no event follows.
                newest_us = part.domain.newest_us or 0
                until_us = newest_us + int((now_s - max(part.heard_s.values())) * 1e6)
                output.extend(part.domain.mark_all_idle(until_us))
            if fresh or gone:
                await self._record_idle(part, sorted(fresh | gone), until_us, asserting=bool(gone))
            if output:
                part.dirty = True
            await self._send_output(part, output)

    def _silent(self, part: _Partition, now_s: float, timeout_s: float) -> set[TopicPartition]:
        return {
            place
            for place, heard_s in part.heard_s.items()
            if now_s - heard_s > timeout_s and part.lag.get(place, 0) == 0
        }

    async def _record_idle(
        self, part: _Partition, places: Sequence[TopicPartition], until_us: int | None, *, asserting: bool
    ) -> None:
        """Record idleness beside the data: it alone depends on a wall clock, and a replay must repeat it."""
        body = {
            "partition": part.domain.partition,
            "idle": [place.topic for place in places],
            "until_us": until_us,
            "asserting": asserting,
            "positions": part.domain.positions,
        }
        key = str(part.domain.partition).encode()
        futures = await self._send_batch(CLOCK, 0, [ProducerRecord(CLOCK, orjson.dumps(body), key, 0)])
        part.unconfirmed += [(future, 0) for future in futures]

    async def _snapshot(self, part: _Partition) -> None:
        """Store the state as it is now, then acknowledge what it covers."""
        async with part.lock:
            if not part.dirty and not part.deliveries:
                return
            began_s = self._monotonic()
            state = {"format": FORMAT, "fingerprint": self._fingerprint.encode(), "domain": part.domain.snapshot()}
            stats = part.domain.counters.as_dict() | {"watermark_us": part.domain.watermark_us}
            deliveries, part.deliveries = part.deliveries, {}
            unconfirmed = [future for future, _ in part.unconfirmed]
            part.dirty = False
            part.number += 1
            number = part.number
        data = await asyncio.to_thread(pack_state, state)
        cost_s = self._monotonic() - began_s
        # Output that the state counts as emitted must be confirmed before the state may be restored.
        if unconfirmed:
            await asyncio.gather(*unconfirmed)
        partition = part.domain.partition
        key = f"correlate/{partition}".encode()
        stats_record = ProducerRecord(STATS, orjson.dumps(stats), key, 0)
        storing_s = self._monotonic()
        await self._deliver([*self._store.messages(partition, number, data), stats_record])
        for delivery in deliveries.values():
            delivery.ack_through()
        now_s = self._monotonic()
        cost_s += min(now_s - storing_s, _STORING_S)
        part.next_snapshot_s = now_s + max(self._interval_s, min(cost_s / _SNAPSHOT_SHARE, _LONGEST_PAUSE_S))
