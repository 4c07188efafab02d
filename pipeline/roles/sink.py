"""From chunks to a sink: decode, batch, write, bury what the store refuses, acknowledge.

The order is what makes it lossless: nothing is acknowledged before the store confirmed it, and a refused row only
after its dead letter was confirmed by the broker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.agents.ingest.decode import dead_letter, decode_chunk
from astrocyte.agents.sinks.base import RecordKind, Rejected, Sink, Sourced, SourcedFrame, SourcedRecords
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer import ProducerRecord
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import KafkaRecord, RawRecord
from astrocyte.schemas.topics import ALERTS, CONTROL_PREFIX, DEAD_LETTERS, MULTI_EVENTS, RULES, SIMULATIONS

__all__ = ["RECORD_TOPICS", "StoreRunner", "decode_for_store"]

logger = logging.getLogger(__name__)

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


def decode_for_store(
    topic: str, partition: int, records: Sequence[KafkaRecord], catalog: Catalog = CATALOG
) -> tuple[list[Sourced], list[DeadLetter]]:
    """What a sink takes of one chunk. Dead letters only of records that no other role has buried already."""
    kind = RECORD_TOPICS.get(topic)
    if topic == RULES or topic.startswith(CONTROL_PREFIX):
        return [_audited(topic, partition, records)], []
    if kind is None:
        frames, _ = decode_chunk(topic, partition, records, catalog)
        return [item for item in frames if item.frame.num_rows or item.frame.end], []
    good, offsets, letters = [], [], []
    for record in records:
        try:
            body = orjson.loads(record.value or b"")
            if not isinstance(body, dict):
                raise ValueError(f"JSON {type(body).__name__} came; an object was wanted")
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


class StoreRunner:
    """Feeds one sink. ``handle`` takes chunks, ``tick`` writes what has waited long enough."""

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
        self._batch = _Batch()
        self._lock = asyncio.Lock()
        self.written = 0
        """Rows that the store has confirmed."""
        self.rejected = 0

    async def handle(self, chunk: Any, delivery: Delivery, records: Sequence[KafkaRecord]) -> None:
        """Take one chunk; returns at once unless the batch is full, which is the back-pressure."""
        items, letters = decode_for_store(chunk.topic, chunk.partition, records, self._catalog)
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
        """Write what there is."""
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
