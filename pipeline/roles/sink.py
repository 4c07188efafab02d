"""The sink roles, one for each registered sink: decode, batch, write, dead-letter refused rows, acknowledge.

Nothing is lost because of this order: nothing is acknowledged before the store has confirmed it, and a refused row only
after the broker has confirmed its dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import mode
import numpy as np
import orjson

from astrocyte.agents.controllers.base import CONTROLLERS
from astrocyte.agents.ingest.decode import dead_letter, decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
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
)
from astrocyte.agents.sinks.registry import SINKS, SinkContext, SinkType
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.pipeline.kafka.client import topic_partitions
from astrocyte.pipeline.metrics import StoreMetrics, serve_metrics
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.pipeline.roles.worker_app import ask_broker, repeat
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.pipeline.topology.topics import make_topics
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.pipeline.transport.transport import TransportOptions, ack_handle, configure
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import KafkaRecord, RawRecord
from astrocyte.schemas.topics import (
    ALERTS,
    CONTROL_PREFIX,
    DEAD_LETTERS,
    MULTI_EVENTS,
    RULES,
    SIMULATIONS,
    control_topic,
    metrics_topic,
)

__all__ = ["RECORD_TOPICS", "SinkRunner", "build_sink", "decode_for_sink"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.05
_FINISH_S: Final = 10.0

RECORD_TOPICS: Final[Mapping[str, RecordKind]] = {
    MULTI_EVENTS: "multi_events",
    ALERTS: "alerts",
    DEAD_LETTERS: "dead_letters",
    SIMULATIONS: "simulations",
}
"""Topics whose messages are JSON records of one kind."""
_EXTENSIONS: Final = {
    "ce_ruleversion": "rule_version",
    "ce_simulationid": "simulation_id",
    "ce_provisional": "provisional",
    "ce_timedout": "timed_out",
}


def decode_for_sink(
    topic: str,
    partition: int,
    records: Sequence[KafkaRecord],
    catalog: Catalog = CATALOG,
    decoders: Decoders | None = None,
) -> tuple[list[Sourced], list[DeadLetter]]:
    """Items of one chunk for a sink. Dead letters only of records for which no other role writes one."""
    kind = RECORD_TOPICS.get(topic)
    if topic == RULES or topic.startswith(CONTROL_PREFIX):
        return [_audited(topic, partition, records)], []
    if kind is None:
        frames, _ = decode_chunk(topic, partition, records, catalog, decoders)
        return [item for item in frames if item.frame.num_rows or item.frame.end], []
    good, offsets, letters = [], [], []
    for record in records:
        try:
            body = orjson.loads(record.value or b"")
            if not isinstance(body, dict):
                raise ValueError(f"expected a JSON object, got {type(body).__name__}")
        except ValueError as error:
            if kind != "dead_letters":
                letters.append(dead_letter(record, topic, partition, reason=f"not JSON: {error}", stage="decode"))
            continue
        if kind in ("multi_events", "alerts"):
            body.setdefault("key", None if record.key is None else record.key.decode(errors="replace"))
            for name, value in record.headers:
                if name in _EXTENSIONS:
                    body[_EXTENSIONS[name]] = value.decode(errors="replace")
        good.append(body)
        offsets.append(record.offset)
    if not good:
        return [], letters
    last = records[-1].offset
    item = SourcedRecords(kind, good, topic, partition, offsets[0], np.array(offsets, np.int64), last_offset=last)
    return [item], letters


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
        monotonic: Callable[[], float] = time.monotonic,
        decoders: Decoders | None = None,
    ) -> None:
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
        self._decoders = decoders
        self._batch = _Batch()
        self._lock = asyncio.Lock()
        self.written = 0
        """Rows that the store has confirmed."""
        self.rejected = 0

    async def handle(self, chunk: Any, delivery: Delivery, records: Sequence[KafkaRecord]) -> None:
        """Take one chunk; returns at once unless the batch is full, which is the back-pressure."""
        items, letters = decode_for_sink(chunk.topic, chunk.partition, records, self._catalog, self._decoders)
        async with self._lock:
            batch = self._batch
            batch.items += items
            batch.letters += [letter_record(letter, chunk.partition) for letter in letters]
            batch.deliveries[chunk.topic, chunk.partition] = delivery
            batch.rows += sum(_rows(item) for item in items)
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
        rejected = await self._sink.write(batch.items) if batch.items else []
        letters = batch.letters + [self._dead_letter(item) for item in rejected]
        if letters:
            await self._deliver(letters)
        self.written += batch.rows - len(rejected)
        self.rejected += len(rejected)
        for delivery in batch.deliveries.values():
            delivery.ack_through()

    def _dead_letter(self, item: Rejected) -> ProducerRecord:
        stage = self._stage
        raw = RawRecord(item.offset, 0, item.key, item.payload)
        letter = dead_letter(raw, item.topic, item.partition, reason=item.reason, stage=stage, row=item.row)
        logger.error("%s[%s]@%s: %s refused a row: %s", item.topic, item.partition, item.offset, stage, item.reason)
        return letter_record(letter, item.partition % self._partitions)


def _rows(item: Sourced) -> int:
    return item.frame.num_rows if isinstance(item, SourcedFrame) else len(item.records)


def build_sink(app: Any, settings: Settings, role: str) -> None:
    """Wire ``app`` so that it writes what the sink of its role's name stores."""
    retry = RetryPolicy(role, on_retry=_listener(app))
    kind = SINKS.get(role)
    context = SinkContext(role, settings.of(role), retry, _now_us, settings.common())
    sink = kind.definition(context)
    decoders = decoders_of(_contracts(settings))
    topics = _topics(settings, kind, decoders.contracts)
    runner = SinkRunner(
        sink,
        lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108  the producer comes with the start
        partitions=settings.partitions,
        stage=role,
        most_rows=kind.batch_rows,
        decoders=decoders,
    )
    app.store_runner = runner
    serve_metrics(settings, role, StoreMetrics(role, runner))

    async def prepare() -> None:
        single = [topic for topic in topics if topic == RULES or topic.startswith(CONTROL_PREFIX)]
        await make_topics(settings, [topic for topic in topics if topic not in single], single=single)
        await sink.open()

    app.prepare = prepare

    async def revoked(_partitions: set[Any]) -> None:
        try:
            await asyncio.wait_for(runner.finish(), _FINISH_S)
        except TimeoutError:
            logger.warning("%s: the store did not take the last batch in time; it is read again", role)

    async def close() -> None:
        retry.stop.set()
        await sink.close()

    app.close_down = close

    configure(app, TransportOptions(on_revoked=revoked, liveness_timeout_s=settings.liveness_timeout / 1e6))

    async def store(stream: Any) -> None:
        async for event in stream.noack().events():
            chunk = event.value
            await runner.handle(chunk, ack_handle(event), chunk.records)

    app.agent(app.topic(*topics), name=role, supervisor_strategy=mode.CrashingSupervisor)(store)
    repeat(app, runner.tick, _TICK_S)
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


def _contracts(settings: Settings) -> Contracts:
    """What the rule files declare, and the topics of undeclared streams; the broker is asked for them if needed."""
    ruleset = read_rule_files(settings.rules) if settings.rules else RuleSet()
    if all(stream in CATALOG for stream in settings.streams):
        return contracts_of(ruleset)
    existing = ask_broker(lambda: topic_partitions(settings.broker))
    return contracts_of(ruleset, existing=existing, streams=settings.streams)


def _topics(settings: Settings, kind: SinkType, contracts: Contracts) -> list[str]:
    """Topics that a kind of sink reads. Raises InvalidSettings where there are none."""
    if kind.streams is None:
        streams: Iterable[str] = settings.streams or tuple(event_type.stream for event_type in CATALOG)
    else:
        streams = kind.streams() if callable(kind.streams) else kind.streams
    topics = [contracts.topic_of(stream) for stream in streams]
    if kind.windows:
        windows = read_rule_files(settings.rules).windows if settings.rules else ()
        topics += [metrics_topic(window.name) for window in windows]
    topics += [topic for topic, record in RECORD_TOPICS.items() if kind.records is None or record in kind.records]
    if kind.audited:
        topics += [RULES, *(control_topic(name) for name in CONTROLLERS.names())]
    if not topics:
        raise InvalidSettings("the sink reads no streams and no records; give register_sink streams=... or records=...")
    return topics


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
