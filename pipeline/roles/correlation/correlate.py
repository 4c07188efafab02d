"""The roles correlate and insight: domains between Kafka topics, with snapshots that make a restart exact.

A chunk is acknowledged once a durable snapshot contains its effect on the state and every record it caused has been
confirmed. A snapshot also contains the next offset of every topic. After a crash the domain is restored and continues
from these offsets, so only the input since the last snapshot is processed again. Delaying acknowledgements until
windows close would not suffice: which events pair may depend on how earlier, long acknowledged ones were paired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from astrocyte.agents.domain import Domain, DomainOutput
from astrocyte.agents.event_time.sources import Supposed
from astrocyte.agents.ingest.copies import is_silence
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.silence import prove
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.metrics import SnapshotFigures
from astrocyte.pipeline.roles.correlation.overload import OverloadControl
from astrocyte.pipeline.roles.correlation.partition import Partition
from astrocyte.pipeline.roles.correlation.unsettled import OutputReader, recalled
from astrocyte.pipeline.roles.correlation.write_proof import WriteProof
from astrocyte.pipeline.roles.idleness import Idleness
from astrocyte.pipeline.roles.output_records import producer_records, stats_record, waiting_of
from astrocyte.pipeline.roles.refusals import LetterLimit, TooManyDeadLetters
from astrocyte.pipeline.roles.stalls import StallWatch, Standing
from astrocyte.pipeline.state.lost import LostState, SnapshotsLost
from astrocyte.pipeline.state.snapshot_schedule import LONGEST_PAUSE_S, SnapshotSchedule
from astrocyte.pipeline.state.snapshot_store import StateStore
from astrocyte.pipeline.state.snapshots import SnapshotDamaged, pack_state, unpack_state
from astrocyte.pipeline.stopping import to_the_end
from astrocyte.pipeline.telemetry.spans import chunk_span
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import AstrocyteError, TransientError
from astrocyte.schemas.topics import CLOCK, STATS, TopicPartition

__all__ = ["Correlator"]

logger = logging.getLogger(__name__)

FORMAT: Final = 10
"""Version of the content of a snapshot."""
_SHOWN: Final = 300
"""Characters of the error that a damaged snapshot causes."""
_LETTERS_S: Final = 10.0
"""How long a role that stops waits for the broker to take its last dead letters."""


class Correlator:
    """All domains of one worker of a role. ``make_domain`` builds the empty domain of a partition."""

    def __init__(
        self,
        make_domain: Callable[[int], Domain],
        store: StateStore,
        send_batch: Callable[[str, int, Sequence[ProducerRecord]], Awaitable[Sequence[asyncio.Future[Any]]]],
        deliver: Callable[[Iterable[ProducerRecord]], Awaitable[None]],
        at_end: Callable[[TopicPartition], AtEnd | None],
        *,
        role: str = "correlate",
        partitions: int,
        snapshot_interval_us: int,
        idle_timeout_us: int,
        producer_timeout_us: int = 600_000_000,
        fingerprint: str = "",
        limit: LetterLimit | None = None,
        stalls: StallWatch | None = None,
        lost: LostState | None = None,
        outputs: OutputReader | None = None,
        overload: OverloadControl | None = None,
        moved: Callable[[], None] = lambda: None,
        busy: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        monotonic: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._make_domain = make_domain
        self._store = store
        self._send_batch = send_batch
        self._deliver = deliver
        self._at_end = at_end
        self.role = role
        self._partitions = partitions
        self._interval_s = snapshot_interval_us / 1e6
        self._idle_s = idle_timeout_us / 1e6
        self._producer_s = producer_timeout_us / 1e6
        self._fingerprint = fingerprint
        self._limit = limit or LetterLimit(role, 1.0)
        self._stalls = stalls or StallWatch(math.inf, self._idle_s, self._producer_s)
        self._lost, self._outputs = lost or LostState("state"), outputs
        self.overload = overload
        self._busy, self._moved = busy, moved
        self._monotonic, self._now_us = monotonic, now_us
        self._domains: dict[int, Partition] = {}
        self._writes = WriteProof(lambda part: send_batch(STATS, 0, [self._stats(part)]), self._idle_s, monotonic)

    @property
    def parts(self) -> list[Partition]:
        """What this worker holds of each partition that it has."""
        return list(self._domains.values())

    @property
    def domains(self) -> dict[int, Domain]:
        """The domain of each partition that this worker has."""
        return {partition: part.domain for partition, part in self._domains.items()}

    @property
    def longest_pause_s(self) -> float:
        """Time after which a chunk is acknowledged at the latest, beside the time that a snapshot takes."""
        return max(self._interval_s, LONGEST_PAUSE_S)

    def snapshot_figures(self) -> Iterator[SnapshotFigures]:
        """Of each domain; the age is that of a last snapshot that lacks something, else 0."""
        now_s = self._monotonic()
        yield from ((partition, *part.snapshot_figures(now_s)) for partition, part in self._domains.items())

    async def assigned(self, committed: Mapping[Any, int | None]) -> dict[Any, int]:
        """Restore the domains of newly assigned partitions; returns the offset at which reading of each topic starts.

        A domain that exists already (a topic was added, or reading restarts without a revocation) continues from what
        it has processed. Raises SnapshotsLost where offsets are committed and there is no snapshot that goes with them,
        and for one that cannot be restored.
        """
        starts: dict[Any, int] = {}
        for partition in sorted({tp.partition for tp in committed}):
            part = await self._intact(partition)
            if part is None:
                done = {tp.topic: offset for tp, offset in committed.items() if tp.partition == partition and offset}
                part = await self._begin(partition, done)
            now_s = self._monotonic()
            positions = part.domain.positions
            for tp, offset in committed.items():
                if tp.partition != partition:
                    continue
                place = TopicPartition(tp.topic, tp.partition)
                if place.topic not in part.domain.linked:
                    part.sources.assigned(place, now_s)
                    part.assigned.add(place)
                start = positions.get(tp.topic, offset)
                if start is not None:
                    starts[tp] = positions[tp.topic] = start
        return starts

    async def _intact(self, partition: int) -> Partition | None:
        """The domain that exists already, unless its work was cut off."""
        part = self._domains.get(partition)
        if part is None:
            return None
        async with part.lock:
            return None if part.owes else part

    async def _begin(self, partition: int, done: Mapping[str, int]) -> Partition:
        part = self._new(partition)
        try:
            loaded = await self._store.load(partition)
            if loaded is not None:
                part.number = loaded[0]
                await self._restore(part, loaded[1])
            elif done:
                # Nothing is committed before a snapshot holds it.
                self._lost.found(f"partition {partition}", done)
                part.domain.renumber(self._now_us())
            else:
                part.unsettled = await recalled(self._outputs, part.domain, 0)
        except (MemoryError, SnapshotsLost, TransientError):
            raise
        except Exception as error:  # noqa: BLE001  whatever damaged bytes cause
            number = error.number if isinstance(error, SnapshotDamaged) else part.number
            named = "" if isinstance(error, AstrocyteError) else f"{type(error).__name__}: "
            self._lost.damaged(f"partition {partition}", f"{named}{str(error)[:_SHOWN]}")
            part = self._new(partition)
            part.number = number
            part.domain.renumber(self._now_us())
        self._domains[partition] = part
        return part

    def _new(self, partition: int) -> Partition:
        schedule = SnapshotSchedule(self._interval_s, self._monotonic())
        return Partition(self._make_domain(partition), Idleness(self._at_end), schedule)

    async def _restore(self, part: Partition, data: bytes) -> None:
        state = await asyncio.to_thread(unpack_state, data)
        if state.get("format") != FORMAT:
            raise AstrocyteError(
                f"partition {part.domain.partition}: expected a snapshot of format {FORMAT}, got "
                f"{state.get('format')}; finish with the version that wrote it"
            )
        if bytes(state["fingerprint"]).decode() != self._fingerprint:
            logger.warning(
                "partition %s: rules or settings changed since snapshot %s; unchanged rules keep their state",
                part.domain.partition, part.number,
            )  # fmt: skip
        part.domain.restore(state["domain"])
        part.decisions = state["decisions"]
        part.decided_from, part.decided_by = state.get("decided_from", 0), state.get("decided_by", "")
        part.unsettled = await recalled(self._outputs, part.domain, state.get("emitted_us", 0))
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
                self._stalls.drop(partition)

    async def handle(self, chunk: Any, delivery: Delivery) -> None:
        """Process one chunk, pass its output to the producer, and wait only if too much is unconfirmed."""
        part = self._domains.get(chunk.partition)
        if part is not None:
            with chunk_span(chunk) as span:
                # Cut off in the midst of it, by the end of the worker, the domain would be ahead of its output.
                output, received = await to_the_end(self._process(part, chunk, delivery))
                span.note(
                    events=received,
                    multi_events=len(output.multi_events),
                    alerts=len(output.alerts),
                    late=len(output.late),
                    dead_letters=len(output.dead_letters),
                )
            self._moved()
            await self._check_letters(part, output, received)
            await self._back_pressure(part)

    async def _process(self, part: Partition, chunk: Any, delivery: Delivery) -> tuple[DomainOutput, int]:
        """Output for a chunk, all handed over, and the number of events received in it."""
        async with part.changing() as owed:
            if owed or delivery.stale:
                return DomainOutput(), 0
            place = TopicPartition(chunk.topic, chunk.partition)
            await self._begin_life(part)
            if self.overload is not None:
                await self.overload.decide(part, chunk)
            sources = part.sources
            silence = chunk.topic in part.domain.copies and all(map(is_silence, chunk.records))
            if sources.idle and not silence and chunk.topic not in part.domain.linked:
                active = sources.idle - sources.silent(self._idle_s) - sources.given_up - {place}
                await self._wait_again(part, sources.idle if sources.all_idle else active)
            domain, before = part.domain, dict(part.domain.positions)
            received, entered, first = domain.counters.received, domain.entered, before.get(chunk.topic, 0)
            output = domain.feed(chunk.topic, chunk.records)
            if domain.leaving_out.held(chunk.topic) is None:
                domain.positions[chunk.topic] = max(first, chunk.next_offset)
            if domain.entered > entered:
                # What is late of this chunk depends on how far the other topics have come: a replay keeps them there.
                await self._record(part, positions=before)
                await self._record(part)
            if silence:
                sources.reported_silent(place, chunk.next_offset)
            elif chunk.topic not in domain.linked:
                sources.processed(place, chunk.next_offset, self._monotonic())
            part.deliveries[chunk.topic] = delivery
            part.dirty = True
            received = part.domain.counters.received - received
            self._stalls.processed(place, first, received - len(output.dead_letters))
            await self._send_output(part, output)
            return output, received

    async def _check_letters(self, part: Partition, output: DomainOutput, received: int) -> None:
        """Raises TooManyDeadLetters, once the broker has the letters."""
        letters = output.dead_letters
        example = (
            f"{letters[0].topic}[{letters[0].partition}]@{letters[0].offset}: {letters[0].reason}" if letters else ""
        )
        try:
            self._limit.count(received, len(letters), example)
        except TooManyDeadLetters:
            await asyncio.wait([future for future, _ in part.unconfirmed], timeout=_LETTERS_S)
            raise

    async def _send_output(self, part: Partition, output: DomainOutput) -> None:
        if not (output := part.unsettled.settle(output, part.domain)):
            return
        for (topic, partition), records in producer_records(output, part.domain.partition, self._partitions).items():
            size = sum(len(record.value or b"") for record in records)
            futures = await self._send_batch(topic, partition, records)
            part.unconfirmed += [(future, size // len(futures)) for future in futures]

    async def _back_pressure(self, part: Partition) -> None:
        while part.holds_back:
            waiting = [future for future, _ in part.unconfirmed if not future.done()]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for future, _ in part.unconfirmed:
            if future.done():
                future.result()
        part.unconfirmed = [(future, size) for future, size in part.unconfirmed if not future.done()]

    async def update(
        self,
        rulesets: Mapping[str, RuleSet],
        fingerprint: str,
        validators: Validators | None = None,
        decoders: Decoders | None = None,
        *,
        reported: RuleSet | None = None,
    ) -> None:
        """Apply changed rules, by group, and changed validators and declarations to every domain.

        ``reported``: the rules for which domains say what they do not use, where these are not those of the groups.
        """
        self._fingerprint = fingerprint
        for part in list(self._domains.values()):
            async with part.lock:
                part.domain.update(rulesets, validators, decoders)
                if reported is not None:
                    part.domain.report_for(reported)
                part.dirty = True

    async def stop(self) -> None:
        """Store a last snapshot of every domain and acknowledge what it covers."""
        await asyncio.gather(*(self._snapshot(part) for part in list(self._domains.values())))

    async def tick(self) -> None:
        """Called a few times a second: find idle sources and store snapshots that are due."""
        now_s = self._monotonic()
        for part in list(self._domains.values()):
            await to_the_end(self._find_idle(part))
        due = [part for part in self._domains.values() if part.dirty and now_s >= part.schedule.due_s]
        await asyncio.gather(*(self._snapshot(part) for part in due))

    async def look_for_stalls(self) -> None:
        """Called about once a second: report what event time waits for, and counts that no snapshot reports soon."""
        standing = {
            partition: Standing(part.domain, part.sources, part.unproven or part.holds_back)
            for partition, part in self._domains.items()
        }
        now_s = self._monotonic()
        changed = self._stalls.look(standing, now_s, self._now_us())
        if due := [part for each, part in self._domains.items() if each in changed or part.owes_counts(now_s)]:
            await self._send_batch(STATS, 0, [self._stats(part) for part in due])

    def _stats(self, part: Partition) -> ProducerRecord:
        part.counted_s = self._monotonic()
        return stats_record(self.role, part.domain, self._stalls.of(part.domain.partition), self._now_us())

    async def _find_idle(self, part: Partition) -> None:
        sources = part.sources
        async with part.changing():
            await self._begin_life(part)
            waiting = waiting_of(part.domain)
            silent = sources.silent(self._idle_s)
            # The evidence for these has ended: records may have arrived.
            await self._wait_again(part, sources.idle - silent - sources.given_up)
            fresh = silent - sources.idle
            part.unproven = bool(fresh) and not self._writes.accepts(part)
            if part.unproven:
                return
            gone = sources.silent(self._producer_s) & sources.idle - sources.given_up
            output = DomainOutput()
            if fresh:
                sources.idle |= fresh
                output.extend(part.domain.mark_idle(sorted(fresh)))
                await self._record(part, idle=sorted(fresh))
            if gone and part.domain.asserting:
                logger.warning(
                    "%s: silent producers no longer delay event time (ASTROCYTE_PRODUCER_TIMEOUT)", sorted(gone)
                )
                sources.given_up |= gone
                output.extend(part.domain.mark_idle(sorted(gone), asserting=True))
                await self._record(part, idle=sorted(gone), asserting=True)
            output.extend(await self._trust_clock(part))
            by_clock = len(silent) == len(sources.heard_s) and not part.domain.asserting
            if by_clock and (newest_us := part.domain.newest_us) is not None:
                # Event time advances with the clock, so that windows close although no event follows. Later events may
                # be out of order by the lateness, as always.
                elapsed_s = min(sources.silent_s(place) for place in sources.heard_s)
                part.until_us = newest_us - part.domain.lateness_us + int(elapsed_s * 1e6)
                output.extend(part.domain.mark_all_idle(part.until_us))
                if fresh:
                    await self._record(part)
            if output or waiting_of(part.domain) != waiting:
                part.dirty = True
            await self._send_output(part, output)
            if part.domain.linked:
                silence = part.report_silence(self._monotonic(), self._idle_s, stands=not by_clock)
                await self._send_output(part, silence)

    async def prove(self, part: Partition, group: int, supposed: Supposed) -> None:
        """The silence of others, by which event time of a group of a domain goes on, is proven (`SilenceProofs`)."""
        async with part.changing() as owed:
            if not owed:
                await self._send_output(part, prove(part.domain, group, supposed))
                part.dirty = True

    async def _trust_clock(self, part: Partition) -> DomainOutput:
        """Accept events that wait because no other key has come so far, if this machine's clock has."""
        waiting = part.domain.waiting
        if not waiting:
            return DomainOutput()
        now_us = self._now_us()
        idle = sorted(part.sources.idle)
        output = part.domain.trust(now_us, idle)
        if part.domain.waiting < waiting:
            part.dirty = True
            await self._record(part, idle=idle, trusted_us=now_us)
        return output

    async def _begin_life(self, part: Partition) -> None:
        """Wait for topics that were assigned, whether or not they were idle before."""
        if part.assigned:
            await self._send_output(part, part.domain.activate(part.assigned, linked=part.restored))
            await self._record(part, active=sorted(part.assigned), restored=part.restored)
            part.assigned, part.restored = set(), False
            part.until_us = part.recorded_until_us = None

    async def _wait_again(self, part: Partition, places: set[TopicPartition]) -> None:
        """These idle topics may hold records that are not read yet: event time waits for them again.

        If all were idle it waits for all, so that the first one to send makes no other late.
        """
        if not places:
            return
        sources = part.sources
        active = sorted(sources.idle if (everything := sources.all_idle) else places)
        output = part.domain.activate(active, asserting=everything, linked=everything)
        await self._send_output(part, output)
        await self._record(part, active=active, asserting=everything)
        if everything:
            sources.restart(self._monotonic())
            part.until_us = part.recorded_until_us = None
        else:
            sources.idle -= places

    async def _record(
        self,
        part: Partition,
        *,
        idle: Sequence[TopicPartition] = (),
        active: Sequence[TopicPartition] = (),
        asserting: bool = False,
        restored: bool = False,
        trusted_us: int | None = None,
        positions: Mapping[str, int] | None = None,
    ) -> None:
        """Record what depends on a clock beside the data, idleness and trust: a replay must repeat it."""
        body = {
            "idle": [place.topic for place in idle],
            "active": [place.topic for place in active],
            "asserting": asserting,
            "restored": restored,
            "trusted_us": trusted_us,
        }
        futures = await self._send_batch(CLOCK, 0, [part.clock_record(self.role, body, positions)])
        part.unconfirmed += [(future, 0) for future in futures]

    async def _snapshot(self, part: Partition) -> None:
        """Store the state as it is now, then acknowledge what it covers."""
        with self._busy("a snapshot is not stored"):
            await self._store_snapshot(part)

    async def _store_snapshot(self, part: Partition) -> None:
        async with part.changing() as owed:
            if owed or not (part.dirty or part.deliveries):
                return
            if part.until_us != part.recorded_until_us:
                await self._record(part)
            began_s = self._monotonic()
            head = {"format": FORMAT, "fingerprint": self._fingerprint.encode(), "decisions": part.decisions}
            state = head | {"emitted_us": part.emitted_us(self._now_us()), "domain": part.domain.snapshot()}
            state |= {"decided_from": part.decided_from, "decided_by": part.decided_by}
            stats = self._stats(part)
            deliveries, part.deliveries = part.deliveries, {}
            unconfirmed = [future for future, _ in part.unconfirmed]
            part.dirty = False
            part.number += 1
            number = part.number
        try:
            data = await asyncio.to_thread(pack_state, state)
            packing_s = self._monotonic() - began_s
            # Output that the state counts as emitted must be confirmed before the state may be restored.
            if unconfirmed:
                await asyncio.wait(unconfirmed)  # gather would cancel them where this is cancelled
                for future in unconfirmed:
                    future.result()
            storing_began_s = self._monotonic()
            await self._deliver([*self._store.messages(part.domain.partition, number, data), stats])
        except BaseException:
            part.dirty, part.deliveries = True, deliveries | part.deliveries
            raise
        for delivery in deliveries.values():
            delivery.ack_through()
        now_s = self._monotonic()
        part.schedule.stored(now_s, packing_s=packing_s, storing_s=now_s - storing_began_s, size=len(data))
