"""The sink roles, one for each registered sink: decode, batch, write, dead-letter refused rows, acknowledge.

Nothing is lost because of this order: nothing is acknowledged before the store has confirmed it, and a refused row only
after the broker has confirmed its dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import mode
import numpy as np
import pyarrow as pa

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.faults import reason_of
from astrocyte.agents.ingest.letters import dead_letter, row_record
from astrocyte.agents.ingest.unused import Unused
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import (
    OnRetry,
    RecordKind,
    Rejected,
    RetryNotice,
    Sink,
    Sourced,
    SourcedFrame,
    SourcedRecords,
    opened,
    written,
)
from astrocyte.agents.sinks.registry import SINKS, SinkContext
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.pipeline.metrics import StoreMetrics, serve_metrics
from astrocyte.pipeline.roles.acceptance import EVERYTHING, Acceptance
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.pipeline.roles.refusals import LetterLimit, UnusedReporter, stopping
from astrocyte.pipeline.roles.worker import RESTART_STATUS
from astrocyte.pipeline.roles.worker_app import follow, join_group, repeat, rules_now
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.state.lost import report_empty_store
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.pipeline.topology.topics import RECORD_TOPICS, make_topics, sink_streams, sink_topics, unread_streams
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.pipeline.transport.transport import ack_handle
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.errors import AstrocyteError, plugin_raised
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import KafkaRecord, RawRecord
from astrocyte.schemas.json.text import read_object
from astrocyte.schemas.topics import (
    CONTROL_PREFIX,
    RULES,
)

__all__ = ["SinkRunner", "build_sink", "decode_for_sink"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.05
_OF_ROWS: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError,
    ValueError, pa.ArrowException,
)  # fmt: skip
"""What raises because of the values in a row, or of a bug; connections and stores raise other errors."""
_FINISH_S: Final = 10.0

_EXTENSIONS: Final = {
    "ce_ruleversion": "rule_version",
    "ce_simulationid": "simulation_id",
    "ce_provisional": "provisional",
    "ce_timedout": "timed_out",
}


class Decoded(NamedTuple):
    """Items of one chunk for a sink, and what could not be read."""

    items: list[Sourced]
    letters: list[DeadLetter]
    """Of records for which no other role writes a dead letter."""
    unread: list[DeadLetter]
    """Of records for which another role writes the dead letter, or that are one."""


def decode_for_sink(
    topic: str,
    partition: int,
    records: Sequence[KafkaRecord],
    catalog: Catalog = CATALOG,
    decoders: Decoders | None = None,
) -> Decoded:
    """Items of one chunk for a sink."""
    kind = RECORD_TOPICS.get(topic)
    if topic == RULES or topic.startswith(CONTROL_PREFIX):
        return Decoded([_audited(topic, partition, records)], [], [])
    if kind is None:
        frames, unread = decode_chunk(topic, partition, records, catalog, decoders)
        return Decoded([item for item in frames if item.frame.num_rows or item.frame.end], [], unread)
    good, offsets, letters = [], [], []
    for record in records:
        try:
            good.append(_body_of(record, kind))
        except Exception as error:  # noqa: BLE001  a record that raises is refused, whatever it raises
            reason = reason_of(f"decoding a record of {topic}", error)
            letters.append(dead_letter(record, topic, partition, reason=reason, stage="decode"))
        else:
            offsets.append(record.offset)
    letters, unread = ([], letters) if kind == "dead_letters" else (letters, [])
    if not good:
        return Decoded([], letters, unread)
    last = records[-1].offset
    item = SourcedRecords(kind, good, topic, partition, offsets[0], np.array(offsets, np.int64), last_offset=last)
    return Decoded([item], letters, unread)


def _body_of(record: KafkaRecord, kind: RecordKind) -> dict[str, Any]:
    body = read_object(record.value)
    if kind in ("multi_events", "alerts"):
        body.setdefault("key", None if record.key is None else record.key.decode(errors="replace"))
        for name, value in record.headers:
            if name in _EXTENSIONS:
                body[_EXTENSIONS[name]] = value.decode(errors="replace")
    return body


def _audited(topic: str, partition: int, records: Sequence[KafkaRecord]) -> SourcedRecords:
    """Rule changes and control events as entries of the audit log."""
    kind = "rule_change" if topic == RULES else topic
    entries = [
        {
            "event_id": str(hash_id(topic, str(partition), str(record.offset))),
            "timestamp": record.timestamp * 1000,
            "kind": kind,
            "subject": None if record.key is None else record.key.decode(errors="replace"),
            "simulation_id": None,
            "payload": None if record.value is None else record.value.decode(errors="replace"),
        }
        for record in records
    ]
    offsets = np.array([record.offset for record in records], np.int64)
    return SourcedRecords("audit", entries, topic, partition, records[0].offset, offsets)


@dataclass(slots=True, eq=False)
class _Batch:
    items: list[Sourced] = field(default_factory=list)
    letters: list[ProducerRecord] = field(default_factory=list)
    deliveries: dict[tuple[str, int], Delivery] = field(default_factory=dict)
    rows: int = 0
    unread: int = 0
    due_s: float = float("inf")


class SinkRunner:
    """Feeds one sink. ``handle`` takes chunks, ``tick`` writes batches that are due."""

    def __init__(
        self,
        sink: Sink,
        deliver: Callable[[Iterable[ProducerRecord]], Awaitable[None]],
        *,
        partitions: int,
        stage: str | None = None,
        most_rows: int = 20_000,
        linger_s: float = 1.0,
        critical_linger_s: float = 0.2,
        catalog: Catalog = CATALOG,
        limit: LetterLimit | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        decoders: Decoders | None = None,
        acceptance: Acceptance = EVERYTHING,
    ) -> None:
        self.update(decoders, acceptance)
        self._sink = sink
        self._deliver = deliver
        self._partitions = partitions
        self._stage = stage or sink.name
        """Stage of the dead letters of what the sink refuses: the name that it is registered by."""
        self._most_rows = most_rows
        self._linger_s = linger_s
        self._critical_linger_s = critical_linger_s
        self._catalog = catalog
        self._monotonic = monotonic
        self._batch = _Batch()
        self._lock = asyncio.Lock()
        self.written = 0
        """Rows that the store has confirmed."""
        self.rejected = 0
        self.unused = Unused()
        """Records that could not be read, and rows that the store, or the code that writes them, refused."""
        self._limit = limit or LetterLimit(self._stage, 1.0)

    def update(self, decoders: Decoders | None, acceptance: Acceptance) -> None:
        """Read, from the next chunk on, by changed declarations and validators."""
        self._decoders = decoders
        self._acceptance = acceptance

    async def handle(self, chunk: Any, delivery: Delivery, records: Sequence[KafkaRecord]) -> None:
        """Take one chunk; returns at once unless the batch is full, which is the back-pressure."""
        items, letters, unread = decode_for_sink(chunk.topic, chunk.partition, records, self._catalog, self._decoders)
        accepted = self._acceptance.accept(items)
        items, letters, unread = accepted.items, letters + accepted.letters, unread + accepted.refused
        for letter in (*letters, *unread):
            self.unused.add_letter(letter)
        async with self._lock:
            batch = self._batch
            batch.items += items
            batch.letters += [letter_record(letter, chunk.partition % self._partitions) for letter in letters]
            batch.deliveries[chunk.topic, chunk.partition] = delivery
            batch.rows += sum(_rows(item) for item in items)
            batch.unread += len(letters) + len(unread)
            linger_s = self._critical_linger_s if any(map(self._critical, items)) else self._linger_s
            batch.due_s = min(batch.due_s, self._monotonic() + linger_s)
            if batch.rows >= self._most_rows:
                await self._write()

    def _critical(self, item: Sourced) -> bool:
        if isinstance(item, SourcedRecords):
            return True
        event_type = self._catalog.find(item.frame.stream)
        return event_type is not None and event_type.priority == "critical"

    async def tick(self) -> None:
        """Write the batch if it is due."""
        if self._monotonic() >= self._batch.due_s:
            async with self._lock:
                await self._write()

    async def finish(self) -> None:
        """Write the present batch."""
        async with self._lock:
            await self._write()

    async def _write(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if not batch.deliveries:
            return
        rejected = await self._store(batch.items) if batch.items else []
        letters = batch.letters + [self._dead_letter(item) for item in rejected]
        if letters:
            await self._deliver(letters)
        self.written += batch.rows - len(rejected)
        self.rejected += len(rejected)
        self._limit.count(batch.rows + batch.unread, len(rejected) + batch.unread)
        for delivery in batch.deliveries.values():
            delivery.ack_through()

    async def _store(self, items: list[Sourced]) -> list[Rejected]:
        """Write items. Where this raises because of what a row holds, its parts are written, and the row is refused.

        A sink may be given the same rows again, so writing the parts of a batch that failed is safe. What the store
        itself raises, or a wrong setting, is no fault of a row and ends the role.
        """
        rejected: list[Rejected] = []
        waiting = [items]
        while waiting:
            part = waiting.pop()
            try:
                rejected += await written(self._stage, self._sink, part)
            except _OF_ROWS as error:
                halves = _halves(part)
                if halves is None:
                    rejected.append(_refused(part[0], reason_of(f"writing a row by {self._stage}", error)))
                else:
                    waiting += reversed(halves)
        return rejected

    def _dead_letter(self, item: Rejected) -> ProducerRecord:
        stage = self._stage
        make = RawRecord if item.topic in RECORD_TOPICS else row_record
        raw = make(item.offset, 0, item.key, item.payload)
        letter = dead_letter(raw, item.topic, item.partition, reason=item.reason, stage=stage, row=item.row)
        self.unused.add_letter(letter)
        return letter_record(letter, item.partition % self._partitions)


def _rows(item: Sourced) -> int:
    return item.frame.num_rows if isinstance(item, SourcedFrame) else len(item.records)


def _halves(items: list[Sourced]) -> list[list[Sourced]] | None:
    """Two parts of a batch; None for a batch of one row, or of one item without rows."""
    if len(items) > 1:
        middle = len(items) // 2
        return [items[:middle], items[middle:]]
    item, rows = items[0], _rows(items[0])
    if rows < 2:
        return None
    return [[_slice(item, 0, rows // 2)], [_slice(item, rows // 2, rows)]]


def _slice(item: Sourced, first: int, last: int) -> Sourced:
    if isinstance(item, SourcedFrame):
        return item.take(np.arange(first, last))
    offsets = None if item.offsets is None else item.offsets[first:last]
    return replace(item, records=item.records[first:last], offset=item.offset_of(first), offsets=offsets)


def _refused(item: Sourced, reason: str) -> Rejected:
    """The only row of an item, as refused; or a frame without rows."""
    if _rows(item):
        return item.rejected(0, reason)
    assert isinstance(item, SourcedFrame)
    return Rejected(item.frame.stream, item.topic, item.partition, item.offset, None, reason, None, b"")


def build_sink(app: Any, settings: Settings, role: str) -> None:
    """Wire ``app`` so that it writes what the sink of its role's name stores."""
    retry = RetryPolicy(role, on_retry=_listener(app))
    kind = SINKS.get(role)
    context = SinkContext(role, settings.of(role), retry, _now_us, settings.common())
    sink = kind.make(context)
    for stream in unread_streams(settings, kind):
        logger.warning(
            "%s: stream %r has a table but is not read, since ASTROCYTE_STREAMS does not name it; add it there",
            role, stream,
        )  # fmt: skip
    live, rules_start, known = rules_now(settings)

    def read_by(ruleset: RuleSet) -> tuple[Decoders, list[str]]:
        contracts = contracts_of(ruleset, existing=known.partitions, streams=sink_streams(settings, kind))
        return decoders_of(contracts), sink_topics(settings, kind, contracts, ruleset.windows)

    decoders, topics = read_by(live.ruleset)
    runner = SinkRunner(
        sink,
        lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108  the producer comes with the start
        partitions=settings.partitions,
        stage=role,
        most_rows=kind.batch_rows,
        limit=LetterLimit(role, settings.dead_letter_limit),
        decoders=decoders,
        acceptance=Acceptance(live.ruleset),
    )
    reporter = UnusedReporter(lambda: [runner.unused], monotonic=time.monotonic)
    app.store_runner = runner
    serve_metrics(settings, role, StoreMetrics(role, runner))

    async def prepare() -> None:
        single = [topic for topic in topics if topic == RULES or topic.startswith(CONTROL_PREFIX)]
        await make_topics(settings, [topic for topic in topics if topic not in single], single=single)
        await opened(role, sink)

    app.prepare = prepare

    async def revoked(_partitions: set[Any]) -> None:
        try:
            with stopping():
                await asyncio.wait_for(runner.finish(), _FINISH_S)
        except TimeoutError:
            logger.warning("%s: the store did not take the last batch in time; it is read again", role)

    async def close() -> None:
        retry.stop.set()
        try:
            await sink.close()
        except Exception as error:  # noqa: BLE001  a method of the user's; everything written was confirmed before
            logger.error("%s", plugin_raised(f"close() of sink {role!r}", error))

    app.close_down = close

    async def assigned(committed: Mapping[Any, int | None]) -> dict[Any, int]:
        with stopping():
            await report_empty_store(sink, role, str(app.conf.id), committed)
        return {}

    join_group(app, live, on_assigned=assigned, on_revoked=revoked)

    async def store(stream: Any) -> None:
        async for event in stream.noack().events():
            chunk = event.value
            with stopping():
                await runner.handle(chunk, ack_handle(event), chunk.records)

    async def tick() -> None:
        with stopping():
            await runner.tick()
        await reporter.tick()

    app.agent(app.topic(*topics), name=role, supervisor_strategy=mode.CrashingSupervisor)(store)

    async def changed(ruleset: RuleSet) -> None:
        decoders, wanted = read_by(ruleset)
        if set(wanted) != set(topics):
            logger.warning("%s: the changed rules have other topics; the worker exits, to be restarted with them", role)
            await revoked(set())
            os._exit(RESTART_STATUS)
        runner.update(decoders, Acceptance(ruleset))
        logger.info("%s reads by the changed rules", role)

    follow(app, live, rules_start, changed)
    repeat(app, tick, _TICK_S)
    if kind.upkeep is not None:
        upkeep = kind.upkeep
        repeat(app, lambda: _maintain(upkeep, context), settings.retention_interval / 1e6)


async def _maintain(upkeep: Callable[[SinkContext], object], context: SinkContext) -> None:
    """Run the sink's upkeep in a thread."""
    try:
        done = await asyncio.to_thread(upkeep, context)
    except AstrocyteError as error:
        logger.warning("%s: upkeep was put off: %s", context.name, error)
    else:
        if done:
            logger.info("%s: retention removed %s rows", context.name, done)


def _listener(app: Any) -> OnRetry:
    """Passes a sink's retry notices to the log and the liveness check, for which waiting for a store is no hang."""

    def hear(notice: RetryNotice) -> None:
        _tell(notice)
        # A store that is away before the role has a consumer is waited for by `prepare`, which nothing watches.
        consumer = getattr(app, "_consumer", None)
        if consumer is not None:
            consumer.beat()

    return hear


def _tell(notice: RetryNotice) -> None:
    if notice.attempt == 0:
        logger.warning("%s: %s", notice.sink, notice.reason)
    elif notice.attempt in (1, 10) or notice.attempt % 100 == 0:
        logger.warning("%s: attempt %s failed: %s; trying again", notice.sink, notice.attempt, notice.reason)


def _now_us() -> int:
    return time.time_ns() // 1000
