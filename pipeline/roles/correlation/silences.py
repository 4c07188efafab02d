"""Silent domains say how far they have read, and their receivers prove by the broker that nothing is left for them.

`agents.silence` has the reasons. What a domain has to say is a record of `control.silences`, which every worker
follows; where event time depends on the silence of others, the broker is asked where all that they read ends. An answer
that does not come, or by which one of them is behind, proves nothing: event time stands still until the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from astrocyte.agents.event_time.sources import Supposed
from astrocyte.agents.silence import Silence, Waited, read_by, silences, suppositions
from astrocyte.pipeline.kafka.client import BrokerUnavailable, consumer_client, scan
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.correlation.copy_ends import Ends
from astrocyte.pipeline.roles.correlation.partition import Partition
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.topics import SILENCES, TopicPartition

__all__ = ["SilenceProofs", "follow_silences"]

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 0.5
"""Time after which the broker is asked again where nothing has come meanwhile."""
_RETRY_S: Final = 1.0


@dataclass(slots=True)
class _Proof:
    """It is proven for all that had come to the domain by then."""

    part: Partition
    supposed: Supposed
    through: dict[str, int]
    """How far the domain has to read of the topics of those that are silent, to know that they still are."""

    @property
    def is_read(self) -> bool:
        positions = self.part.domain.positions
        return all(positions.get(topic, 0) >= offset for topic, offset in self.through.items())


@dataclass(slots=True)
class SilenceProofs:
    """What the domains of a worker say of their silence, and what is proven to them of that of others.

    ``group`` distinguishes workers of others on the same broker. ``originals`` names the partitions of the original of
    each topic of copies. ``prove`` tells a domain what is proven of one of its groups, by its number.
    """

    group: str
    role: str
    originals: Mapping[str, Sequence[TopicPartition]]
    send_batch: Callable[[str, int, Sequence[ProducerRecord]], Awaitable[Sequence[asyncio.Future[Any]]]]
    ends: Ends
    parts: Callable[[], Collection[Partition]]
    prove: Callable[[Partition, int, Supposed], Awaitable[None]]
    monotonic: Callable[[], float] = time.monotonic
    known: dict[Waited, Silence] = field(default_factory=dict)
    """By topic and origin: what silent groups have said last."""
    _said: dict[bytes, Silence] = field(default_factory=dict)
    _proofs: dict[tuple[int, int], _Proof] = field(default_factory=dict)
    """By partition and number of the group: what holds once the domain has read on."""
    _asked_s: float = 0.0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self, records: Iterable[ConsumedRecord]) -> None:
        """Take records of `control.silences`, in order. One that cannot be read proves nothing, and stops nothing."""
        for record in records:
            if not (record.key or b"").startswith(f"{self.group}/".encode()) or not record.value:
                continue
            try:
                silence = _unpack(record.value)
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("%s[%s]@%s is not read: %r", SILENCES, record.partition, record.offset, error)
                continue
            self.known |= {(topic, silence.origin): silence for topic in silence.topics}
        self._wake.set()

    def moved(self) -> None:
        """A domain has taken something: its silence, or that of others, may say more now."""
        self._wake.set()

    def tick(self) -> None:
        """Called a few times a second."""
        if self.monotonic() - self._asked_s >= _AGAIN_S:
            self._wake.set()

    async def run(self) -> None:
        """Say and prove whenever something has come."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Say what is new of the worker's domains, ask the broker where event time depends on it, and tell them."""
        for part in list(self.parts()):
            if any(lane.promises is not None and lane.promises.silent for lane in part.domain.lanes):
                await self._say(part)
        await self._tell()
        await self._ask()
        await self._tell()

    async def _say(self, part: Partition) -> None:
        async with part.lock:
            said = [] if part.owes else silences(part.domain, self._positions(part))
            fresh = {key: each for each in said if self._said.get(key := self._key_of(each)) != each}
            # What a group has sent before it fell silent must be there before anybody relies on it.
            if not fresh or not all(future.done() for future, _ in part.unconfirmed):
                return
        records = [ProducerRecord(SILENCES, _pack(each), key, 0) for key, each in fresh.items()]
        part.unconfirmed += [(future, 0) for future in await self.send_batch(SILENCES, 0, records)]
        self._said |= fresh

    def _key_of(self, silence: Silence) -> bytes:
        return f"{self.group}/{self.role}/{silence.origin}".encode()

    def _positions(self, part: Partition) -> dict[str, list[tuple[str, int, int]]]:
        """By topic: how far the domain has come, and with what its copies are made of."""
        domain, sources = part.domain, part.sources
        found = {topic: [(topic, domain.partition, domain.positions.get(topic, 0))] for topic in domain.linked}
        for place in sources.heard_s:
            offset = domain.positions.get(place.topic, 0)
            if sources.silent_s(place) > 0 and (end := sources.at_end(place)) is not None:
                offset = max(offset, end.offset)  # transactions and compaction leave offsets without a record
            found[place.topic] = [(*place, offset)]
            found[place.topic] += [
                (*original, domain.copied_through(place.topic, original.partition))
                for original in self.originals.get(place.topic, ())
            ]
        return found

    async def _ask(self) -> None:
        """Ask where everything ends that those have read whose silence counts; keeps what is proven by it."""
        wanted: list[tuple[tuple[int, int], _Proof, dict[TopicPartition, int]]] = []
        for part in list(self.parts()):
            for number, supposed in suppositions(part.domain).items():
                where = part.domain.partition, number
                known = read_by(((each.topic, each.origin) for each in supposed.silent), self.known)
                if known is not None and where not in self._proofs:
                    topics = dict.fromkeys((each.topic for each in supposed.silent), 0)
                    wanted.append((where, _Proof(part, supposed, topics), known))
        if not wanted:
            return
        self._asked_s = self.monotonic()
        own = {TopicPartition(topic, where[0]) for where, proof, _ in wanted for topic in proof.through}
        ends = await self.ends(own.union(*(known for _, _, known in wanted)))
        if ends is None:
            return
        for where, proof, known in wanted:
            if all(ends.get(place, 0) <= offset for place, offset in known.items()):
                proof.through = {topic: ends.get(TopicPartition(topic, where[0]), 0) for topic in proof.through}
                self._proofs[where] = proof

    async def _tell(self) -> None:
        there = {id(part) for part in self.parts()}
        for (where, number), proof in list(self._proofs.items()):
            if id(proof.part) not in there:
                del self._proofs[where, number]
            elif proof.is_read:
                del self._proofs[where, number]
                await self.prove(proof.part, number, proof.supposed)


async def follow_silences(broker: str, proofs: SilenceProofs) -> None:
    """Read `control.silences` from its beginning and on; waits while the broker is unavailable."""
    while True:
        try:
            async with consumer_client(broker) as client:
                async for records in scan(client, {SILENCES: 1}, follow=True):
                    if records:
                        proofs.read(records)
        except BrokerUnavailable as error:
            # The consumer of the role reports it.
            logger.debug("what silent domains say is not followed now: %s", error)
            await asyncio.sleep(_RETRY_S)


def _pack(silence: Silence) -> bytes:
    return orjson.dumps(silence._asdict())


def _unpack(value: bytes) -> Silence:
    body = orjson.loads(value)
    return Silence(
        body["origin"],
        tuple(body["topics"]),
        tuple((topic, partition, offset) for topic, partition, offset in body["read"]),
        tuple((topic, origin) for topic, origin in body["unawaited"]),
    )
