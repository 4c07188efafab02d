"""The runner of a sink: decode, batch, write, dead-letter refused rows, acknowledge.

Nothing is lost because of this order: nothing is acknowledged before the store has confirmed it, and a refused row only
after the broker has confirmed its dead letter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.faults import reason_of
from astrocyte.agents.ingest.letters import dead_letter, row_record
from astrocyte.agents.ingest.unused.counts import Unused
from astrocyte.agents.sinks.base import Rejected, Sink, Sourced, SourcedFrame, SourcedRecords, written
from astrocyte.pipeline.roles.acceptance import EVERYTHING, Acceptance
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.pipeline.roles.refusals import LetterLimit
from astrocyte.pipeline.roles.sink.calls import SinkCalls
from astrocyte.pipeline.roles.sink.decode import decode_for_sink
from astrocyte.pipeline.telemetry.spans import write_span
from astrocyte.pipeline.topology.topics import RECORD_TOPICS
from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.json.reader import KafkaRecord, RawRecord

__all__ = ["SinkRunner"]

_OF_ROWS: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError,
    ValueError, pa.ArrowException,
)  # fmt: skip
"""What raises because of the values in a row, or of a bug; connections and stores raise other errors."""


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
        busy: Callable[[str], AbstractContextManager[Any]] = nullcontext,
        calls: SinkCalls | None = None,
    ) -> None:
        self.update(decoders, acceptance)
        self._sink = sink
        self._calls = calls or SinkCalls()
        self._deliver = deliver
        self._partitions = partitions
        self._stage = stage or sink.name
        """Stage of the dead letters of what the sink refuses: the name that it is registered by."""
        self._most_rows = most_rows
        self._linger_s = linger_s
        self._critical_linger_s = critical_linger_s
        self._catalog = catalog
        self._monotonic = monotonic
        self._busy = busy
        self._batch = _Batch()
        self._lock = asyncio.Lock()
        self.written = 0
        """Rows that the store has confirmed."""
        self.rejected = 0
        self.writes = 0
        """Batches that the store has confirmed."""
        self.writes_s = 0.0
        """How long they took together, with retries."""
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

    @property
    def waiting(self) -> int:
        """Rows of the batch that is being collected."""
        return self._batch.rows

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
        rejected = []
        if batch.items:
            began_s = self._monotonic()
            with self._busy("the store has not answered a write"), write_span(self._stage, batch.rows) as span:
                rejected = await self._store(batch.items)
                span.note(rejected=len(rejected))
            self.writes += 1
            self.writes_s += self._monotonic() - began_s
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
                rejected += await self._calls.run("write()", partial(written, self._stage, self._sink, part))
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
